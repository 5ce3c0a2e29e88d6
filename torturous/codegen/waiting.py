"""How a thread waits for another one, per system: the only platform-dependent part of the driver.

Seven functions of LLVM IR: `@driver_pause` (a hint inside a spinning loop), `@driver_yield` (let another thread
run), `@driver_sleep` (sleep until the 32-bit word at an address may have changed from a given value; waking up
for no reason is allowed), `@driver_wake` (wake all who sleep on a word), `@driver_note_leader` (the calling
thread leads a run), `@driver_avoid_leader` (leave the processor that the leader runs on) and
`@driver_sleep_aside` (sleep, and do not wake up there). The last three are only on Linux more than their names
without the leader, whose scheduler otherwise lets the leader and a worker that yields or was just woken take
turns on one processor for milliseconds while another one idles.

Linux makes the system calls itself, so the driver refers to no symbol of any library. Elsewhere the system's
own functions are called through pointers, which Python looks up (`Waiting.functions`) and stores in the
control block: `__ulock_wait` on Darwin, `WaitOnAddress` on Windows, and on any other POSIX system a sleep of
half a millisecond at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

FUTEX_WAIT_PRIVATE = 128  # <linux/futex.h>
FUTEX_WAKE_PRIVATE = 129
EVERYONE = 0x7FFFFFFF
COMPARE_AND_WAIT = 1  # <sys/ulock.h> of Darwin's kernel: UL_COMPARE_AND_WAIT
WAKE_ALL = 0x100  # ULF_WAKE_ALL
POLL_MICROSECONDS = 500
CPU_MASK_BYTES = 128  # 1024 processors; on a larger machine the kernel refuses, and nobody moves


@dataclass(frozen=True)
class Waiting:
    """The waiting functions of one system.

    `functions` names, as (library, symbol), the C functions whose addresses the control block holds from its
    field FUNCTIONS on, in this order; the library None is the running process. `text` is the LLVM IR.
    """

    functions: tuple[tuple[str | None, str], ...]
    text: str


@dataclass(frozen=True)
class _SystemCall:
    """How Linux is called on one architecture: the instruction, its registers, and two call numbers."""

    instruction: str
    registers: str
    sched_yield: int
    futex: int
    getcpu: int
    sched_setaffinity: int
    sched_getaffinity: int


_PAUSE = {
    "x86_64": "pause",
    "aarch64": "isb",  # `yield` does nothing on most cores; this waits about as long as x86's pause
    "riscv64": ".insn i 0x0F, 0, x0, x0, 0x010",  # `pause`, to cores without it a harmless fence
}

_LINUX = {
    "x86_64": _SystemCall(
        "syscall", "={rax},{rax},{rdi},{rsi},{rdx},{r10},~{rcx},~{r11},~{memory}",
        sched_yield=24, futex=202, getcpu=309, sched_setaffinity=203, sched_getaffinity=204,
    ),
    "aarch64": _SystemCall(
        "svc #0", "={x0},{x8},{x0},{x1},{x2},{x3},~{memory}",
        sched_yield=124, futex=98, getcpu=168, sched_setaffinity=122, sched_getaffinity=123,
    ),
    "riscv64": _SystemCall(
        "ecall", "={a0},{a7},{a0},{a1},{a2},{a3},~{memory}",
        sched_yield=124, futex=98, getcpu=168, sched_setaffinity=122, sched_getaffinity=123,
    ),
}

_PAUSE_TEXT = Template("""
define internal void @driver_pause() nounwind {
  call void asm sideeffect "$pause", "~{memory}"()
  ret void
}
""")

_FUNCTION_TEXT = Template("""
define internal ptr @driver_function_$index(ptr %control) nounwind {
  %field = getelementptr i8, ptr %control, i64 $offset
  %function = load ptr, ptr %field, align 8
  ret ptr %function
}
""")

_PROCESSORS_UNKNOWN = """
define internal void @driver_note_leader(ptr %control) nounwind {
  ret void
}

define internal void @driver_avoid_leader(ptr %control) nounwind {
  ret void
}

define internal void @driver_sleep_aside(ptr %control, ptr %word, i32 %seen) nounwind {
  call void @driver_sleep(ptr %control, ptr %word, i32 %seen)
  ret void
}
"""

_LINUX_TEXT = Template("""
define internal i64 @driver_call_linux(i64 %number, ptr %first, i64 %second, i64 %third) nounwind {
  %result = call i64 asm sideeffect "$instruction", "$registers"(
      i64 %number, ptr %first, i64 %second, i64 %third, i64 0)
  ret i64 %result
}

define internal void @driver_yield(ptr %control) nounwind {
  %result = call i64 @driver_call_linux(i64 $sched_yield, ptr null, i64 0, i64 0)
  ret void
}

define internal void @driver_sleep(ptr %control, ptr %word, i32 %seen) nounwind {
  %value = zext i32 %seen to i64
  %result = call i64 @driver_call_linux(i64 $futex, ptr %word, i64 $wait, i64 %value)
  ret void
}

define internal void @driver_note_leader(ptr %control) nounwind {
  %leader_field = getelementptr i8, ptr %control, i64 $leader
  %result = call i64 @driver_call_linux(i64 $getcpu, ptr %leader_field, i64 0, i64 0)
  ret void
}

define internal void @driver_avoid_leader(ptr %control) nounwind {
begin:
  %here_field = alloca i32, align 4
  %leader_field = getelementptr i8, ptr %control, i64 $leader
  %result = call i64 @driver_call_linux(i64 $getcpu, ptr %here_field, i64 0, i64 0)
  %here = load i32, ptr %here_field, align 4
  %there = load atomic i32, ptr %leader_field monotonic, align 4
  %crowded = icmp eq i32 %here, %there
  br i1 %crowded, label %move, label %done

move:
  call void @driver_leave(i32 %here)
  br label %done

done:
  ret void
}

; Moves this thread to another processor than `here`, by forbidding and then allowing it again.
define internal void @driver_leave(i32 %here) nounwind {
begin:
  %mask = alloca [$CPU_MASK_BYTES x i8], align 8
  %filled = call i64 @driver_forbid(i32 %here, ptr %mask)
  call void @driver_allow(i32 %here, ptr %mask, i64 %filled)
  ret void
}

; Sleeps where it will not wake up on the leader's processor, to which the scheduler likes to bring who is woken there.
define internal void @driver_sleep_aside(ptr %control, ptr %word, i32 %seen) nounwind {
begin:
  %mask = alloca [$CPU_MASK_BYTES x i8], align 8
  %leader_field = getelementptr i8, ptr %control, i64 $leader
  %there = load atomic i32, ptr %leader_field monotonic, align 4
  %filled = call i64 @driver_forbid(i32 %there, ptr %mask)
  call void @driver_sleep(ptr %control, ptr %word, i32 %seen)
  call void @driver_allow(i32 %there, ptr %mask, i64 %filled)
  ret void
}

; Forbids this thread a processor: the length of the mask that it has now, or 0 if nothing has changed.
define internal i64 @driver_forbid(i32 %processor, ptr %mask) nounwind {
begin:
  %mask_address = ptrtoint ptr %mask to i64
  %filled = call i64 @driver_call_linux(
      i64 $sched_getaffinity, ptr null, i64 $CPU_MASK_BYTES, i64 %mask_address)
  %index = lshr i32 %processor, 3
  %covered = icmp ult i32 %index, $CPU_MASK_BYTES
  %known = icmp sgt i64 %filled, 0
  %possible = and i1 %covered, %known
  br i1 %possible, label %look, label %nothing

look:
  %byte_field = getelementptr i8, ptr %mask, i32 %index
  %allowed = load i8, ptr %byte_field, align 1
  %bit = call i8 @driver_bit(i32 %processor)
  %others = xor i8 %bit, -1
  %elsewhere = and i8 %allowed, %others
  ; Where this processor is not allowed any more, somebody has just moved the thread: their mask stays.
  %overtaken = icmp eq i8 %elsewhere, %allowed
  br i1 %overtaken, label %nothing, label %forbid

forbid:
  store i8 %elsewhere, ptr %byte_field, align 1
  %refused = call i64 @driver_call_linux(i64 $sched_setaffinity, ptr null, i64 %filled, i64 %mask_address)
  %moved = icmp eq i64 %refused, 0
  br i1 %moved, label %done, label %nothing

done:
  ret i64 %filled

nothing:
  ret i64 0
}

; Allows this thread the processor again that it was forbidden, unless somebody has given it another mask since.
define internal void @driver_allow(i32 %processor, ptr %mask, i64 %filled) nounwind {
begin:
  %now = alloca [$CPU_MASK_BYTES x i8], align 8
  %forbidden = icmp ne i64 %filled, 0
  br i1 %forbidden, label %look, label %done

look:
  %now_address = ptrtoint ptr %now to i64
  %filled_now = call i64 @driver_call_linux(
      i64 $sched_getaffinity, ptr null, i64 $CPU_MASK_BYTES, i64 %now_address)
  %index = lshr i32 %processor, 3
  %byte_field = getelementptr i8, ptr %mask, i32 %index
  %now_field = getelementptr i8, ptr %now, i32 %index
  %left = load i8, ptr %byte_field, align 1
  %left_now = load i8, ptr %now_field, align 1
  %same_length = icmp eq i64 %filled_now, %filled
  %same_byte = icmp eq i8 %left_now, %left
  %ours = and i1 %same_length, %same_byte
  br i1 %ours, label %allow, label %done

allow:
  %mask_address = ptrtoint ptr %mask to i64
  %bit = call i8 @driver_bit(i32 %processor)
  %allowed = or i8 %left, %bit
  store i8 %allowed, ptr %byte_field, align 1
  %freed = call i64 @driver_call_linux(i64 $sched_setaffinity, ptr null, i64 %filled, i64 %mask_address)
  br label %done

done:
  ret void
}

; A processor's bit in its byte of a mask.
define internal i8 @driver_bit(i32 %processor) nounwind {
  %low = and i32 %processor, 7
  %shift = trunc i32 %low to i8
  %bit = shl i8 1, %shift
  ret i8 %bit
}

define internal void @driver_wake(ptr %control, ptr %word) nounwind {
  %result = call i64 @driver_call_linux(i64 $futex, ptr %word, i64 $wake, i64 $everyone)
  ret void
}
""")

_DARWIN_TEXT = Template("""
define internal void @driver_yield(ptr %control) nounwind {
  %sched_yield = call ptr @driver_function_0(ptr %control)
  %result = call i32 %sched_yield()
  ret void
}

define internal void @driver_sleep(ptr %control, ptr %word, i32 %seen) nounwind {
  %ulock_wait = call ptr @driver_function_1(ptr %control)
  %value = zext i32 %seen to i64
  %result = call i32 %ulock_wait(i32 $wait, ptr %word, i64 %value, i32 0)
  ret void
}

define internal void @driver_wake(ptr %control, ptr %word) nounwind {
  %ulock_wake = call ptr @driver_function_2(ptr %control)
  %result = call i32 %ulock_wake(i32 $wake, ptr %word, i64 0)
  ret void
}
""")

_WINDOWS_TEXT = """
define internal void @driver_yield(ptr %control) nounwind {
  %switch_to_thread = call ptr @driver_function_0(ptr %control)
  %result = call i32 %switch_to_thread()
  ret void
}

define internal void @driver_sleep(ptr %control, ptr %word, i32 %seen) nounwind {
  %compared = alloca i32, align 4
  store i32 %seen, ptr %compared, align 4
  %wait_on_address = call ptr @driver_function_1(ptr %control)
  %result = call i32 %wait_on_address(ptr %word, ptr %compared, i64 4, i32 -1)
  ret void
}

define internal void @driver_wake(ptr %control, ptr %word) nounwind {
  %wake_by_address_all = call ptr @driver_function_2(ptr %control)
  call void %wake_by_address_all(ptr %word)
  ret void
}
"""

_POSIX_TEXT = Template("""
define internal void @driver_yield(ptr %control) nounwind {
  %sched_yield = call ptr @driver_function_0(ptr %control)
  %result = call i32 %sched_yield()
  ret void
}

define internal void @driver_sleep(ptr %control, ptr %word, i32 %seen) nounwind {
  %usleep = call ptr @driver_function_1(ptr %control)
  %result = call i32 %usleep(i32 $poll)
  ret void
}

define internal void @driver_wake(ptr %control, ptr %word) nounwind {
  ret void
}
""")

_FUNCTIONS: dict[str, tuple[tuple[str | None, str], ...]] = {
    "darwin": ((None, "sched_yield"), (None, "__ulock_wait"), (None, "__ulock_wake")),
    "windows": (
        ("kernel32", "SwitchToThread"),
        ("api-ms-win-core-synch-l1-2-0", "WaitOnAddress"),
        ("api-ms-win-core-synch-l1-2-0", "WakeByAddressAll"),
    ),
    "posix": ((None, "sched_yield"), (None, "usleep")),
}


def waiting(architecture: str, system: str, functions_offset: int, leader_offset: int) -> Waiting:
    """The waiting functions of a system.

    `architecture` is as in an LLVM triple (`x86_64`, `aarch64`, ...); `system` is `linux`, `darwin`,
    `windows` or `posix` (any other). `functions_offset` and `leader_offset` are where in the control block,
    in bytes, the function pointers and the leader's processor lie.
    """
    pause = _PAUSE_TEXT.substitute(pause=_PAUSE.get(architecture, ""))
    if system == "linux" and architecture in _LINUX:
        call = _LINUX[architecture]
        return Waiting((), pause + _LINUX_TEXT.substitute(
            instruction=call.instruction, registers=call.registers, sched_yield=call.sched_yield,
            futex=call.futex, wait=FUTEX_WAIT_PRIVATE, wake=FUTEX_WAKE_PRIVATE, everyone=EVERYONE,
            getcpu=call.getcpu, sched_setaffinity=call.sched_setaffinity,
            sched_getaffinity=call.sched_getaffinity, leader=leader_offset, CPU_MASK_BYTES=CPU_MASK_BYTES,
        ))
    texts = {
        "darwin": _DARWIN_TEXT.substitute(wait=COMPARE_AND_WAIT, wake=COMPARE_AND_WAIT | WAKE_ALL),
        "windows": _WINDOWS_TEXT,
        "posix": _POSIX_TEXT.substitute(poll=POLL_MICROSECONDS),
    }
    kind = system if system in texts else "posix"
    functions = _FUNCTIONS[kind]
    getters = "".join(
        _FUNCTION_TEXT.substitute(index=index, offset=functions_offset + 8 * index)
        for index in range(len(functions))
    )
    return Waiting(functions, pause + getters + _PROCESSORS_UNKNOWN + texts[kind])

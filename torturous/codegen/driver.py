"""The driver: the fixed native function that walks a plan's table of kernels with all workers.

One function, `void torturous_drive(ptr control, i64 worker, ptr table, i64 entries)`:

- Worker 0, the calling thread, publishes the table, does its share and returns when everything is done.
- Any other worker never comes back until it is dismissed: it waits for a table, does its share, waits again,
  and leaves when the published table is null. Its own `table` and `entries` are not looked at.
- With one worker, the calling thread does everything without touching an atomic.

**The plan table** is an array of ENTRY_BYTES-byte entries of 64-bit fields: the kernel, its arguments, the
number of pieces, the rotation, and whether a barrier follows. A kernel is `void kernel(ptr arguments, i64
first_piece, i64 last_piece, ptr scratch)` over a half-open range of pieces, which is never empty. Of P
pieces, worker w of T does those from ⌈P·p/T⌉ up to ⌈P·(p+1)/T⌉ with p = (w + rotation) mod T: contiguous,
balanced to within one piece, and where there are fewer pieces than workers and no rotation, it is the calling
thread, certainly awake, that has work. Entries that no barrier separates may run at the same time; a barrier
always follows the last entry.

**The control block** is CONTROL_BYTES bytes, zero at first, in which Python sets WORKERS, SCRATCH,
SCRATCH_STRIDE and the function pointers of `waiting`. Worker w gets the scratch memory at SCRATCH +
w·SCRATCH_STRIDE. Fields that different threads write lie 128 bytes apart, because x86 fetches cache lines in
pairs.

Threads meet at *gates*: a 32-bit value that changes when the gate opens, and beside it the number of threads
asleep until it does. Who waits spins first (a hand-over takes half a microsecond), then yields (spinning
alone loses milliseconds when the scheduler has taken the other thread off its core), then sleeps.
"""

from __future__ import annotations

from string import Template

from torturous.codegen.waiting import Waiting, waiting

SYMBOL = "torturous_drive"

ENTRY_BYTES = 64
KERNEL, ARGUMENTS, PIECES, ROTATION, BARRIER = range(5)
"""Positions of an entry's 64-bit fields; the remaining three are reserved and zero."""

CONTROL_BYTES = 768
START = 0
MEETING = 128
ARRIVALS = 256
TABLE = 384
ENTRIES = 392
LEADER = 400
WORKERS = 512
SCRATCH = 520
SCRATCH_STRIDE = 528
FUNCTIONS = 536
"""Byte offsets of the control block's fields."""

SPINS = 300
YIELDS = 2000
"""How often a waiting thread pauses, then yields, before it sleeps: about 0.01 ms and 1 ms."""

_TEXT = Template("""
; Waits until the gate's value differs from the one seen; returns the new value.
define internal i32 @driver_await(ptr %control, i64 %worker, ptr %gate, i32 %seen) nounwind {
arrive:
  %sleepers = getelementptr i8, ptr %gate, i64 4
  %follows = icmp ne i64 %worker, 0
  br label %look

look:
  %turn = phi i64 [ 0, %arrive ], [ %next_turn, %spin ], [ %next_turn, %avoid ], [ %next_turn, %yield ],
                  [ %next_turn, %sleep ]
  %value = load atomic i32, ptr %gate acquire, align 4
  %open = icmp ne i32 %value, %seen
  br i1 %open, label %pass, label %patience

patience:
  %next_turn = add i64 %turn, 1
  %fresh = icmp ult i64 %turn, $SPINS
  br i1 %fresh, label %spin, label %weary

spin:
  call void @driver_pause()
  br label %look

weary:
  %first_time = icmp eq i64 %turn, $SPINS
  %moves = and i1 %first_time, %follows
  br i1 %moves, label %avoid, label %drowsy

avoid:
  call void @driver_avoid_leader(ptr %control)
  br label %look

drowsy:
  %awake = icmp ult i64 %turn, $TURNS
  br i1 %awake, label %yield, label %sleep

yield:
  call void @driver_yield(ptr %control)
  br label %look

sleep:
  ; Announced before the value is compared again (inside @driver_sleep), as @driver_open changes the value
  ; before it counts the sleepers: one of the two always notices the other.
  %others_before = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @driver_sleep(ptr %control, ptr %gate, i32 %seen)
  %others_after = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br i1 %follows, label %avoid, label %look

pass:
  ret i32 %value
}

; Gives the gate its next value and wakes those who sleep there.
define internal void @driver_open(ptr %control, ptr %gate) nounwind {
change:
  %sleepers = getelementptr i8, ptr %gate, i64 4
  %value = load atomic i32, ptr %gate monotonic, align 4
  %next_value = add i32 %value, 1
  store atomic i32 %next_value, ptr %gate seq_cst, align 4
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %anyone = icmp ne i32 %asleep, 0
  br i1 %anyone, label %wake, label %done

wake:
  call void @driver_wake(ptr %control, ptr %gate)
  br label %done

done:
  ret void
}

; A barrier: returns when all workers are here.
define internal void @driver_meet(ptr %control, i64 %worker, i64 %workers) nounwind {
arrive:
  %gate = getelementptr i8, ptr %control, i64 $MEETING
  %arrivals = getelementptr i8, ptr %control, i64 $ARRIVALS
  %seen = load atomic i32, ptr %gate acquire, align 4
  %before = atomicrmw add ptr %arrivals, i32 1 acq_rel
  %here = add i32 %before, 1
  %all = trunc i64 %workers to i32
  %last = icmp eq i32 %here, %all
  br i1 %last, label %open, label %wait

open:
  store atomic i32 0, ptr %arrivals monotonic, align 4
  call void @driver_open(ptr %control, ptr %gate)
  br label %done

wait:
  %value = call i32 @driver_await(ptr %control, i64 %worker, ptr %gate, i32 %seen)
  br label %done

done:
  ret void
}

; Does every piece of every entry on this thread.
define internal void @driver_walk_alone(ptr %control, ptr %table, i64 %entries) nounwind {
begin:
  %scratch_field = getelementptr i8, ptr %control, i64 $SCRATCH
  %scratch = load ptr, ptr %scratch_field, align 8
  br label %each

each:
  %index = phi i64 [ 0, %begin ], [ %next_index, %look ], [ %next_index, %execute ]
  %more = icmp ult i64 %index, %entries
  br i1 %more, label %look, label %done

look:
  %entry = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %index
  %pieces_field = getelementptr i64, ptr %entry, i64 $PIECES
  %pieces = load i64, ptr %pieces_field, align 8
  %next_index = add i64 %index, 1
  %some = icmp ugt i64 %pieces, 0
  br i1 %some, label %execute, label %each

execute:
  %kernel_field = getelementptr i64, ptr %entry, i64 $KERNEL
  %arguments_field = getelementptr i64, ptr %entry, i64 $ARGUMENTS
  %kernel = load ptr, ptr %kernel_field, align 8
  %arguments = load ptr, ptr %arguments_field, align 8
  call void %kernel(ptr %arguments, i64 0, i64 %pieces, ptr %scratch)
  br label %each

done:
  ret void
}

; Does this worker's share of every entry and meets the others at the barriers and at the end.
define internal void @driver_walk_together(
    ptr %control, i64 %worker, i64 %workers, ptr %table, i64 %entries) nounwind {
begin:
  %scratch_field = getelementptr i8, ptr %control, i64 $SCRATCH
  %stride_field = getelementptr i8, ptr %control, i64 $SCRATCH_STRIDE
  %scratch_base = load ptr, ptr %scratch_field, align 8
  %stride = load i64, ptr %stride_field, align 8
  %scratch_offset = mul i64 %worker, %stride
  %scratch = getelementptr i8, ptr %scratch_base, i64 %scratch_offset
  %slack = sub i64 %workers, 1
  br label %each

each:
  %index = phi i64 [ 0, %begin ], [ %next_index, %advance ], [ %next_index, %meet ]
  %more = icmp ult i64 %index, %entries
  br i1 %more, label %share, label %finish

share:
  %entry = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %index
  %pieces_field = getelementptr i64, ptr %entry, i64 $PIECES
  %rotation_field = getelementptr i64, ptr %entry, i64 $ROTATION
  %pieces = load i64, ptr %pieces_field, align 8
  %rotation = load i64, ptr %rotation_field, align 8
  %rotated = add i64 %worker, %rotation
  %position = urem i64 %rotated, %workers
  %share_begin = mul i64 %pieces, %position
  %share_end = add i64 %share_begin, %pieces
  %begin_raised = add i64 %share_begin, %slack
  %end_raised = add i64 %share_end, %slack
  %first = udiv i64 %begin_raised, %workers
  %last = udiv i64 %end_raised, %workers
  %some = icmp ult i64 %first, %last
  br i1 %some, label %execute, label %advance

execute:
  %kernel_field = getelementptr i64, ptr %entry, i64 $KERNEL
  %arguments_field = getelementptr i64, ptr %entry, i64 $ARGUMENTS
  %kernel = load ptr, ptr %kernel_field, align 8
  %arguments = load ptr, ptr %arguments_field, align 8
  call void %kernel(ptr %arguments, i64 %first, i64 %last, ptr %scratch)
  br label %advance

advance:
  %barrier_field = getelementptr i64, ptr %entry, i64 $BARRIER
  %barrier = load i64, ptr %barrier_field, align 8
  %next_index = add i64 %index, 1
  %flagged = icmp ne i64 %barrier, 0
  %continues = icmp ult i64 %next_index, %entries
  %meets = and i1 %flagged, %continues
  br i1 %meets, label %meet, label %each

meet:
  call void @driver_meet(ptr %control, i64 %worker, i64 %workers)
  br label %each

finish:
  call void @driver_meet(ptr %control, i64 %worker, i64 %workers)
  ret void
}

define void @$SYMBOL(ptr %control, i64 %worker, ptr %table, i64 %entries) nounwind {
begin:
  %start = getelementptr i8, ptr %control, i64 $START
  %table_field = getelementptr i8, ptr %control, i64 $TABLE
  %entries_field = getelementptr i8, ptr %control, i64 $ENTRIES
  %workers_field = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers_field, align 8
  %single = icmp eq i64 %workers, 1
  br i1 %single, label %alone, label %together

alone:
  call void @driver_walk_alone(ptr %control, ptr %table, i64 %entries)
  ret void

together:
  %leader = icmp eq i64 %worker, 0
  br i1 %leader, label %lead, label %park

lead:
  store ptr %table, ptr %table_field, align 8
  store i64 %entries, ptr %entries_field, align 8
  call void @driver_note_leader(ptr %control)
  call void @driver_open(ptr %control, ptr %start)
  %dismissing = icmp eq ptr %table, null
  br i1 %dismissing, label %leave, label %do_own_share

do_own_share:
  call void @driver_walk_together(ptr %control, i64 0, i64 %workers, ptr %table, i64 %entries)
  ret void

park:
  %seen = phi i32 [ 0, %together ], [ %value, %do_share ]
  %value = call i32 @driver_await(ptr %control, i64 %worker, ptr %start, i32 %seen)
  %published_table = load ptr, ptr %table_field, align 8
  %published_entries = load i64, ptr %entries_field, align 8
  %dismissed = icmp eq ptr %published_table, null
  br i1 %dismissed, label %leave, label %do_share

do_share:
  call void @driver_walk_together(
      ptr %control, i64 %worker, i64 %workers, ptr %published_table, i64 %published_entries)
  br label %park

leave:
  ret void
}
""")


def driver(architecture: str, system: str) -> Waiting:
    """The driver for a system: its complete IR text, and the C functions that its control block points to.

    `architecture` is as in an LLVM triple; `system` is `linux`, `darwin`, `windows` or `posix` (any other
    system).
    """
    system_part = waiting(architecture, system, FUNCTIONS, LEADER)
    text = _TEXT.substitute(
        SYMBOL=SYMBOL, ENTRY_BYTES=ENTRY_BYTES, KERNEL=KERNEL, ARGUMENTS=ARGUMENTS, PIECES=PIECES,
        ROTATION=ROTATION, BARRIER=BARRIER, START=START, MEETING=MEETING, ARRIVALS=ARRIVALS, TABLE=TABLE,
        ENTRIES=ENTRIES, WORKERS=WORKERS, SCRATCH=SCRATCH, SCRATCH_STRIDE=SCRATCH_STRIDE, SPINS=SPINS,
        TURNS=SPINS + YIELDS,
    )
    return Waiting(system_part.functions, system_part.text + text)

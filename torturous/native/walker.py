"""How an exported library walks its table of kernels: the driver's work (`codegen.driver`) without threads of its own.

The plan table (`codegen.table`) lies in the caller's workspace, behind a *control block*:

    offset  what
    0       error word: a kernel found an index out of range
    8       counter of pieces done, of the level that is running
    12      counter of pieces that came with a worker that does not exist
    16      where the running level's entries begin
    24      its number of pieces
    32      scratch memory of worker 0
    40      distance to that of the next worker
    48      number of workers

`walk` does every piece on the calling thread. `share` hands a level's pieces to the caller's own parallel-for and
goes on when that comes back. A pool may do the pieces in any order, on any threads, or one after the other; what it
leaves out or does twice is noticed by counting.
"""

from __future__ import annotations

from string import Template

from torturous.codegen.table import ENTRY_BYTES, walking
from torturous.native.codes import Code

CONTROL_BYTES = 64
ERROR, DONE, STRAY, LEVEL, PIECES, SCRATCH, STRIDE, WORKERS = 0, 8, 12, 16, 24, 32, 40, 48
"""Byte offsets in the control block."""
MOST_WORKERS = 1 << 16

_TEXT = Template("""
; One piece of the running level, counted over its entries in a row.
define internal void @${name}_piece(ptr %workspace, i64 %piece, i64 %worker) #0 {
begin:
  %done = getelementptr i8, ptr %workspace, i64 $DONE
  %stray = getelementptr i8, ptr %workspace, i64 $STRAY
  %level_field = getelementptr i8, ptr %workspace, i64 $LEVEL
  %pieces_field = getelementptr i8, ptr %workspace, i64 $PIECES
  %scratch_field = getelementptr i8, ptr %workspace, i64 $SCRATCH
  %stride_field = getelementptr i8, ptr %workspace, i64 $STRIDE
  %workers_field = getelementptr i8, ptr %workspace, i64 $WORKERS
  %level = load ptr, ptr %level_field, align 8
  %pieces = load i64, ptr %pieces_field, align 8
  %base = load ptr, ptr %scratch_field, align 8
  %stride = load i64, ptr %stride_field, align 8
  %workers = load i64, ptr %workers_field, align 8
  %known_piece = icmp ult i64 %piece, %pieces
  %known_worker = icmp ult i64 %worker, %workers
  %known = and i1 %known_piece, %known_worker
  br i1 %known, label %execute, label %refuse

refuse:
  %strays = atomicrmw add ptr %stray, i32 1 monotonic, align 4
  ret void

execute:
  %offset = mul i64 %worker, %stride
  %scratch = getelementptr i8, ptr %base, i64 %offset
  %after = add i64 %piece, 1
  call void @${name}_range(ptr %level, i64 %piece, i64 %after, ptr %scratch)
  %before = atomicrmw add ptr %done, i32 1 release, align 4
  ret void
}

; Level by level through the caller's parallel-for; gives a code.
define internal i32 @${name}_share(ptr %workspace, ptr %table, i64 %entries, ptr %run, ptr %pool) #0 {
begin:
  %done = getelementptr i8, ptr %workspace, i64 $DONE
  %stray = getelementptr i8, ptr %workspace, i64 $STRAY
  %level_field = getelementptr i8, ptr %workspace, i64 $LEVEL
  %total_field = getelementptr i8, ptr %workspace, i64 $PIECES
  br label %begin_level

begin_level:
  %first = phi i64 [ 0, %begin ], [ %next, %settle ]
  %more = icmp ult i64 %first, %entries
  br i1 %more, label %measure, label %leave

measure:
  %measured = call { i64, i64 } @${name}_level(ptr %table, i64 %first, i64 %entries)
  %next = extractvalue { i64, i64 } %measured, 0
  %pieces = extractvalue { i64, i64 } %measured, 1
  %level = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %first
  store ptr %level, ptr %level_field, align 8
  store i64 %pieces, ptr %total_field, align 8
  store atomic i32 0, ptr %done monotonic, align 4
  store atomic i32 0, ptr %stray monotonic, align 4
  %alone = icmp ule i64 %pieces, 1
  br i1 %alone, label %single, label %hand_out

single:
  %some = icmp ne i64 %pieces, 0
  br i1 %some, label %execute, label %settle

execute:
  call void @${name}_piece(ptr %workspace, i64 0, i64 0)
  br label %settle

hand_out:
  call void %run(ptr %pool, i64 %pieces, ptr @${name}_piece, ptr %workspace)
  br label %settle

settle:
  %counted = load atomic i32, ptr %done acquire, align 4
  %strays = load atomic i32, ptr %stray monotonic, align 4
  %want = trunc i64 %pieces to i32
  %complete = icmp eq i32 %counted, %want
  %clean = icmp eq i32 %strays, 0
  %good = and i1 %complete, %clean
  br i1 %good, label %begin_level, label %fail

leave:
  ret i32 0

fail:
  ret i32 $EPOOL
}
""")


def walker(name: str) -> str:
    """The functions `name_walk` and `name_share` as LLVM IR."""
    return walking(name, "#0") + _TEXT.substitute(
        name=name, SCRATCH=SCRATCH, STRIDE=STRIDE, LEVEL=LEVEL, PIECES=PIECES, WORKERS=WORKERS, DONE=DONE, STRAY=STRAY,
        ENTRY_BYTES=ENTRY_BYTES, EPOOL=int(Code.EPOOL))

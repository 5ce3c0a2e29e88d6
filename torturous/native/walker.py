"""How an exported library walks its table of kernels: the driver's work (`codegen.driver`) without threads of its own.

The table is the plan table of every run, with less in it: one entry of ENTRY_BYTES per kernel, in order; a barrier
after the last entry of each level. It lies in the caller's workspace, behind a *control block*:

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

from torturous.native.codes import Code

CONTROL_BYTES = 64
ERROR, DONE, STRAY, LEVEL, PIECES, SCRATCH, STRIDE, WORKERS = 0, 8, 12, 16, 24, 32, 40, 48
ENTRY_BYTES = 32
KERNEL, ARGUMENTS, ENTRY_PIECES, BARRIER = 0, 8, 16, 24
"""Byte offsets in the control block, and in an entry."""
MOST_WORKERS = 1 << 16

_TEXT = Template("""
define internal void @${name}_walk(ptr %workspace, ptr %table, i64 %entries) #0 {
begin:
  %scratch_field = getelementptr i8, ptr %workspace, i64 $SCRATCH
  %scratch = load ptr, ptr %scratch_field, align 8
  br label %look

look:
  %index = phi i64 [ 0, %begin ], [ %next, %execute ]
  %more = icmp ult i64 %index, %entries
  br i1 %more, label %execute, label %done

execute:
  %entry = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %index
  %arguments_field = getelementptr i8, ptr %entry, i64 $ARGUMENTS
  %pieces_field = getelementptr i8, ptr %entry, i64 $ENTRY_PIECES
  %kernel = load ptr, ptr %entry, align 8
  %arguments = load ptr, ptr %arguments_field, align 8
  %pieces = load i64, ptr %pieces_field, align 8
  call void %kernel(ptr %arguments, i64 0, i64 %pieces, ptr %scratch)
  %next = add i64 %index, 1
  br label %look

done:
  ret void
}

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
  br i1 %known, label %seek, label %refuse

refuse:
  %strays = atomicrmw add ptr %stray, i32 1 monotonic, align 4
  ret void

seek:
  %entry = phi ptr [ %level, %begin ], [ %next_entry, %advance ]
  %left = phi i64 [ %piece, %begin ], [ %next_left, %advance ]
  %count_field = getelementptr i8, ptr %entry, i64 $ENTRY_PIECES
  %count = load i64, ptr %count_field, align 8
  %here = icmp ult i64 %left, %count
  br i1 %here, label %execute, label %advance

advance:
  %next_left = sub i64 %left, %count
  %next_entry = getelementptr i8, ptr %entry, i64 $ENTRY_BYTES
  br label %seek

execute:
  %arguments_field = getelementptr i8, ptr %entry, i64 $ARGUMENTS
  %kernel = load ptr, ptr %entry, align 8
  %arguments = load ptr, ptr %arguments_field, align 8
  %offset = mul i64 %worker, %stride
  %scratch = getelementptr i8, ptr %base, i64 %offset
  %after = add i64 %left, 1
  call void %kernel(ptr %arguments, i64 %left, i64 %after, ptr %scratch)
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
  %index = phi i64 [ %first, %begin_level ], [ %next, %measure ]
  %before = phi i64 [ 0, %begin_level ], [ %pieces, %measure ]
  %entry = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %index
  %pieces_field = getelementptr i8, ptr %entry, i64 $ENTRY_PIECES
  %barrier_field = getelementptr i8, ptr %entry, i64 $BARRIER
  %entry_pieces = load i64, ptr %pieces_field, align 8
  %barrier = load i64, ptr %barrier_field, align 8
  %pieces = add i64 %before, %entry_pieces
  %next = add i64 %index, 1
  %ends = icmp ne i64 %barrier, 0
  br i1 %ends, label %publish, label %measure

publish:
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
    return _TEXT.substitute(
        name=name, SCRATCH=SCRATCH, STRIDE=STRIDE, LEVEL=LEVEL, PIECES=PIECES, WORKERS=WORKERS, DONE=DONE, STRAY=STRAY,
        ENTRY_BYTES=ENTRY_BYTES, ARGUMENTS=ARGUMENTS, ENTRY_PIECES=ENTRY_PIECES, BARRIER=BARRIER, EPOOL=int(Code.EPOOL))

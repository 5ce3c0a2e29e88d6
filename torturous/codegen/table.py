"""The plan table: what a run consists of, and what everyone who walks one does with it.

A table is an array of ENTRY_BYTES-byte entries of 64-bit fields: the kernel, its arguments, the number of pieces, and
whether a barrier follows. A kernel is `void kernel(ptr arguments, i64 first_piece, i64 last_piece, ptr scratch)` over
a half-open range of pieces, which is never empty. Entries that no barrier separates make up a *level* and may run at
the same time; a barrier always follows the last entry. The table is only read.

The driver (`codegen.driver`) walks tables with threads of its own, an exported library (`native.walker`) with its
caller's.
"""

from __future__ import annotations

from string import Template

ENTRY_BYTES = 32
KERNEL, ARGUMENTS, PIECES, BARRIER = range(4)
"""Positions of an entry's 64-bit fields."""

_TEXT = Template("""
; Does every piece of every entry on this thread.
define internal void @${name}_walk(ptr %table, i64 %entries, ptr %scratch) $attributes {
begin:
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

; The level that begins at an entry: where the next one begins, and its number of pieces.
define internal { i64, i64 } @${name}_level(ptr %table, i64 %first, i64 %entries) $attributes {
begin:
  br label %measure

measure:
  %index = phi i64 [ %first, %begin ], [ %next, %measure ]
  %before = phi i64 [ 0, %begin ], [ %pieces, %measure ]
  %entry = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %index
  %pieces_field = getelementptr i64, ptr %entry, i64 $PIECES
  %barrier_field = getelementptr i64, ptr %entry, i64 $BARRIER
  %entry_pieces = load i64, ptr %pieces_field, align 8
  %barrier = load i64, ptr %barrier_field, align 8
  %pieces = add i64 %before, %entry_pieces
  %next = add i64 %index, 1
  %unflagged = icmp eq i64 %barrier, 0
  %continues = icmp ult i64 %next, %entries
  %goes_on = and i1 %unflagged, %continues
  br i1 %goes_on, label %measure, label %done

done:
  %only_next = insertvalue { i64, i64 } undef, i64 %next, 0
  %both = insertvalue { i64, i64 } %only_next, i64 %pieces, 1
  ret { i64, i64 } %both
}

; Does a range of a level's pieces, which are counted over its entries in a row; `level` is the first of these.
define internal void @${name}_range(ptr %level, i64 %level_first, i64 %level_last, ptr %scratch) $attributes {
begin:
  br label %each

each:
  ; Pieces are counted from the entry's first one.
  %entry = phi ptr [ %level, %begin ], [ %next_entry, %advance ]
  %first = phi i64 [ %level_first, %begin ], [ %next_first, %advance ]
  %last = phi i64 [ %level_last, %begin ], [ %next_last, %advance ]
  %pieces_field = getelementptr i64, ptr %entry, i64 $PIECES
  %pieces = load i64, ptr %pieces_field, align 8
  %here = icmp ult i64 %first, %pieces
  br i1 %here, label %execute, label %look

execute:
  %within = icmp ult i64 %last, %pieces
  %stop = select i1 %within, i64 %last, i64 %pieces
  %kernel_field = getelementptr i64, ptr %entry, i64 $KERNEL
  %arguments_field = getelementptr i64, ptr %entry, i64 $ARGUMENTS
  %kernel = load ptr, ptr %kernel_field, align 8
  %arguments = load ptr, ptr %arguments_field, align 8
  call void %kernel(ptr %arguments, i64 %first, i64 %stop, ptr %scratch)
  br label %look

look:
  %reached = phi i64 [ %first, %each ], [ %stop, %execute ]
  %more = icmp ult i64 %reached, %last
  br i1 %more, label %advance, label %done

advance:
  %next_entry = getelementptr i8, ptr %entry, i64 $ENTRY_BYTES
  %next_first = sub i64 %reached, %pieces
  %next_last = sub i64 %last, %pieces
  br label %each

done:
  ret void
}
""")


def walking(name: str, attributes: str) -> str:
    """The functions `name_walk`, `name_level` and `name_range` as LLVM IR."""
    return _TEXT.substitute(name=name, attributes=attributes, ENTRY_BYTES=ENTRY_BYTES, KERNEL=KERNEL,
                            ARGUMENTS=ARGUMENTS, PIECES=PIECES, BARRIER=BARRIER)

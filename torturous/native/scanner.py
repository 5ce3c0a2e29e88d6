"""Moving through a safetensors header, which is JSON, in an exported library: the pieces that `reader` is made of.

Functions give the next position, or −1 once something is wrong; −1 goes in, −1 comes out, so that failures need no
branches of their own. Positions in front of the header's end are not negative.
"""

from __future__ import annotations

from string import Template

_TEXT = Template("""
; The next byte that is no space, as a position; −1 at the end.
define internal i64 @${name}_skip(ptr %text, i64 %at, i64 %end) #0 {
begin:
  br label %look
look:
  %here = phi i64 [ %at, %begin ], [ %next, %space ]
  %within = icmp ult i64 %here, %end
  br i1 %within, label %read, label %fail
read:
  %place = getelementptr i8, ptr %text, i64 %here
  %byte = load i8, ptr %place, align 1
  switch i8 %byte, label %found [ i8 32, label %space
                                  i8 9, label %space
                                  i8 10, label %space
                                  i8 13, label %space ]
space:
  %next = add i64 %here, 1
  br label %look
found:
  ret i64 %here
fail:
  ret i64 -1
}

; Past spaces and this byte.
define internal i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 %wanted) #0 {
begin:
  %here = call i64 @${name}_skip(ptr %text, i64 %at, i64 %end)
  %known = icmp ne i64 %here, -1
  br i1 %known, label %read, label %fail
read:
  %place = getelementptr i8, ptr %text, i64 %here
  %byte = load i8, ptr %place, align 1
  %same = icmp eq i8 %byte, %wanted
  %next = add i64 %here, 1
  br i1 %same, label %found, label %fail
found:
  ret i64 %next
fail:
  ret i64 -1
}

; Whether the next byte that is no space is this one.
define internal i1 @${name}_is(ptr %text, i64 %at, i64 %end, i8 %wanted) #0 {
  %next = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 %wanted)
  %found = icmp ne i64 %next, -1
  ret i1 %found
}

; Past a string in quotes, whose content begins at `first` and ends at the result − 1.
define internal i64 @${name}_string(ptr %text, i64 %at, i64 %end, ptr %first) #0 {
begin:
  %start = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 34)
  store i64 %start, ptr %first, align 8
  br label %look
look:
  %here = phi i64 [ %start, %begin ], [ %next, %plain ], [ %beyond, %escape ]
  %within = icmp ult i64 %here, %end
  br i1 %within, label %read, label %fail
read:
  %place = getelementptr i8, ptr %text, i64 %here
  %byte = load i8, ptr %place, align 1
  %next = add i64 %here, 1
  %beyond = add i64 %here, 2
  switch i8 %byte, label %plain [ i8 34, label %found
                                  i8 92, label %escape ]
plain:
  br label %look
escape:
  br label %look
found:
  ret i64 %next
fail:
  ret i64 -1
}

; Whether a string's content is this one.
define internal i1 @${name}_same(ptr %text, i64 %first, i64 %after, ptr %wanted, i64 %length) #0 {
begin:
  %from_first = sub i64 %after, %first
  %content = sub i64 %from_first, 1
  %long = icmp eq i64 %content, %length
  br i1 %long, label %look, label %fail
look:
  %index = phi i64 [ 0, %begin ], [ %next, %read ]
  %more = icmp ult i64 %index, %length
  br i1 %more, label %read, label %found
read:
  %position = add i64 %first, %index
  %place = getelementptr i8, ptr %text, i64 %position
  %byte = load i8, ptr %place, align 1
  %wanted_place = getelementptr i8, ptr %wanted, i64 %index
  %wanted_byte = load i8, ptr %wanted_place, align 1
  %next = add i64 %index, 1
  %same = icmp eq i8 %byte, %wanted_byte
  br i1 %same, label %look, label %fail
found:
  ret i1 true
fail:
  ret i1 false
}

; Past a decimal number below 2⁵⁶.
define internal i64 @${name}_number(ptr %text, i64 %at, i64 %end, ptr %value) #0 {
begin:
  %start = call i64 @${name}_skip(ptr %text, i64 %at, i64 %end)
  br label %look
look:
  %here = phi i64 [ %start, %begin ], [ %next, %take ]
  %total = phi i64 [ 0, %begin ], [ %larger, %take ]
  %within = icmp ult i64 %here, %end
  br i1 %within, label %read, label %fail
read:
  %place = getelementptr i8, ptr %text, i64 %here
  %byte = load i8, ptr %place, align 1
  %wide = zext i8 %byte to i64
  %digit = sub i64 %wide, 48
  %is_digit = icmp ult i64 %digit, 10
  br i1 %is_digit, label %take, label %stop
take:
  %tenfold = mul i64 %total, 10
  %larger = add i64 %tenfold, %digit
  %next = add i64 %here, 1
  %fits = icmp ult i64 %larger, 72057594037927936
  br i1 %fits, label %look, label %fail
stop:
  %some = icmp ne i64 %here, %start
  br i1 %some, label %found, label %fail
found:
  store i64 %total, ptr %value, align 8
  ret i64 %here
fail:
  ret i64 -1
}

; Past an array of exactly these numbers.
define internal i64 @${name}_shape(ptr %text, i64 %at, i64 %end, ptr %sizes, i64 %rank) #0 {
begin:
  %value = alloca i64, align 8
  %opened = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 91)
  br label %look
look:
  %here = phi i64 [ %opened, %begin ], [ %after, %next ]
  %index = phi i64 [ 0, %begin ], [ %following, %next ]
  %more = icmp ult i64 %index, %rank
  br i1 %more, label %separate, label %close
separate:
  %later = icmp ne i64 %index, 0
  br i1 %later, label %comma, label %take
comma:
  %past = call i64 @${name}_expect(ptr %text, i64 %here, i64 %end, i8 44)
  br label %take
take:
  %from = phi i64 [ %here, %separate ], [ %past, %comma ]
  %after = call i64 @${name}_number(ptr %text, i64 %from, i64 %end, ptr %value)
  %bad = icmp eq i64 %after, -1
  br i1 %bad, label %fail, label %compare
compare:
  %have = load i64, ptr %value, align 8
  %place = getelementptr i64, ptr %sizes, i64 %index
  %want = load i64, ptr %place, align 8
  %same = icmp eq i64 %have, %want
  br i1 %same, label %next, label %fail
next:
  %following = add i64 %index, 1
  br label %look
close:
  %closed = call i64 @${name}_expect(ptr %text, i64 %here, i64 %end, i8 93)
  ret i64 %closed
fail:
  ret i64 -1
}

; Past an array of any numbers.
define internal i64 @${name}_numbers(ptr %text, i64 %at, i64 %end) #0 {
begin:
  %value = alloca i64, align 8
  %opened = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 91)
  %empty = call i1 @${name}_is(ptr %text, i64 %opened, i64 %end, i8 93)
  br i1 %empty, label %close, label %take
take:
  %here = phi i64 [ %opened, %begin ], [ %past, %comma ]
  %after = call i64 @${name}_number(ptr %text, i64 %here, i64 %end, ptr %value)
  %again = call i1 @${name}_is(ptr %text, i64 %after, i64 %end, i8 44)
  br i1 %again, label %comma, label %close
comma:
  %past = call i64 @${name}_expect(ptr %text, i64 %after, i64 %end, i8 44)
  br label %take
close:
  %last = phi i64 [ %opened, %begin ], [ %after, %take ]
  %closed = call i64 @${name}_expect(ptr %text, i64 %last, i64 %end, i8 93)
  ret i64 %closed
}
""")


def scanner(name: str) -> str:
    """The functions `name_skip`, `_expect`, `_is`, `_string`, `_same`, `_number`, `_shape`, `_numbers` as LLVM IR."""
    return _TEXT.substitute(name=name)

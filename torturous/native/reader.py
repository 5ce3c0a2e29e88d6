"""Reading a safetensors file in an exported library: strictly, and without memory of its own.

`name_read(file, bytes, block, sources)` gives a code. A table says what is to be found; every tensor is checked and
copied to its place in the block, or its address is written to `sources`. Nothing that the file says is believed before
it has been compared: lengths with the file's, shapes and data types with those wanted. Other tensors may be there, and
are passed over.

How positions move through the header is told in `scanner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from torturous.native.codes import Code
from torturous.native.scanner import scanner
from torturous.native.weights import CODES, SUM_DIGITS, SUM_KEY, Weight

_TEXT = Template("""
; Past the header's metadata: strings by name. Sums found there are left as two words behind a flag.
define internal i64 @${name}_metadata(ptr %text, i64 %at, i64 %end, ptr %sums) #0 {
begin:
  %first = alloca i64, align 8
  %opened = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 123)
  %empty = call i1 @${name}_is(ptr %text, i64 %opened, i64 %end, i8 125)
  br i1 %empty, label %close, label %take
take:
  %here = phi i64 [ %opened, %begin ], [ %past, %comma ]
  %named = call i64 @${name}_string(ptr %text, i64 %here, i64 %end, ptr %first)
  %name_first = load i64, ptr %first, align 8
  %colon = call i64 @${name}_expect(ptr %text, i64 %named, i64 %end, i8 58)
  %after = call i64 @${name}_string(ptr %text, i64 %colon, i64 %end, ptr %first)
  %bad = icmp eq i64 %after, -1
  br i1 %bad, label %fail, label %look
look:
  %ours = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr @${name}_sum_key, i64 $KEY_BYTES)
  br i1 %ours, label %measure, label %following
measure:
  %value_first = load i64, ptr %first, align 8
  %from_first = sub i64 %after, %value_first
  %long = icmp eq i64 %from_first, $DIGITS_AND_QUOTE
  br i1 %long, label %digits, label %fail
digits:
  %index = phi i64 [ 0, %measure ], [ %next, %keep ]
  %word = phi i64 [ 0, %measure ], [ %joined, %keep ]
  %position = add i64 %value_first, %index
  %place = getelementptr i8, ptr %text, i64 %position
  %byte = load i8, ptr %place, align 1
  %wide = zext i8 %byte to i64
  %decimal = sub i64 %wide, 48
  %is_decimal = icmp ult i64 %decimal, 10
  %letter = sub i64 %wide, 97
  %is_letter = icmp ult i64 %letter, 6
  %from_ten = add i64 %letter, 10
  %digit = select i1 %is_decimal, i64 %decimal, i64 %from_ten
  %valid = or i1 %is_decimal, %is_letter
  br i1 %valid, label %keep, label %fail
keep:
  %shifted = shl i64 %word, 4
  %joined = or i64 %shifted, %digit
  %half = lshr i64 %index, 4
  %slot = add i64 %half, 1
  %slot_place = getelementptr i64, ptr %sums, i64 %slot
  store i64 %joined, ptr %slot_place, align 8
  %next = add i64 %index, 1
  %more = icmp ult i64 %next, $DIGITS
  br i1 %more, label %digits, label %flag
flag:
  store i64 1, ptr %sums, align 8
  br label %following
following:
  %again = call i1 @${name}_is(ptr %text, i64 %after, i64 %end, i8 44)
  br i1 %again, label %comma, label %close
comma:
  %past = call i64 @${name}_expect(ptr %text, i64 %after, i64 %end, i8 44)
  br label %take
close:
  %last = phi i64 [ %opened, %begin ], [ %after, %following ]
  %closed = call i64 @${name}_expect(ptr %text, i64 %last, i64 %end, i8 125)
  ret i64 %closed
fail:
  ret i64 -1
}

; Past a tensor's description. `want` is its entry of the table, or null; `range` takes where its data lies.
define internal i64 @${name}_tensor(ptr %text, i64 %at, i64 %end, ptr %want, ptr %range) #0 {
begin:
  %first = alloca i64, align 8
  %last_place = getelementptr i64, ptr %range, i64 1
  %known = icmp ne ptr %want, null
  %opened = call i64 @${name}_expect(ptr %text, i64 %at, i64 %end, i8 123)
  br label %take
take:
  %here = phi i64 [ %opened, %begin ], [ %past, %comma ]
  %seen = phi i64 [ 0, %begin ], [ %seen_now, %comma ]
  %named = call i64 @${name}_string(ptr %text, i64 %here, i64 %end, ptr %first)
  %colon = call i64 @${name}_expect(ptr %text, i64 %named, i64 %end, i8 58)
  %bad = icmp eq i64 %colon, -1
  br i1 %bad, label %fail, label %choose
choose:
  %name_first = load i64, ptr %first, align 8
  %is_dtype = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr @${name}_word_dtype, i64 5)
  br i1 %is_dtype, label %dtype, label %not_dtype
not_dtype:
  %is_shape = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr @${name}_word_shape, i64 5)
  br i1 %is_shape, label %shape, label %not_shape
not_shape:
  %is_range = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr @${name}_word_range, i64 12)
  br i1 %is_range, label %range_part, label %fail

dtype:
  %dtype_after = call i64 @${name}_string(ptr %text, i64 %colon, i64 %end, ptr %first)
  %dtype_read = icmp ne i64 %dtype_after, -1
  br i1 %dtype_read, label %dtype_wanted, label %fail
dtype_wanted:
  br i1 %known, label %dtype_compare, label %following
dtype_compare:
  %dtype_first = load i64, ptr %first, align 8
  %dtype_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 2
  %dtype_text = load ptr, ptr %dtype_field
  %dtype_length_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 5
  %dtype_length = load i64, ptr %dtype_length_field
  %dtype_same = call i1 @${name}_same(ptr %text, i64 %dtype_first, i64 %dtype_after, ptr %dtype_text, i64 %dtype_length)
  br i1 %dtype_same, label %following, label %fail

shape:
  br i1 %known, label %shape_compare, label %shape_skip
shape_skip:
  %shape_skipped = call i64 @${name}_numbers(ptr %text, i64 %colon, i64 %end)
  br label %following
shape_compare:
  %sizes_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 1
  %sizes = load ptr, ptr %sizes_field
  %rank_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 4
  %rank = load i64, ptr %rank_field
  %shape_after = call i64 @${name}_shape(ptr %text, i64 %colon, i64 %end, ptr %sizes, i64 %rank)
  br label %following

range_part:
  %range_opened = call i64 @${name}_expect(ptr %text, i64 %colon, i64 %end, i8 91)
  %range_first = call i64 @${name}_number(ptr %text, i64 %range_opened, i64 %end, ptr %range)
  %range_comma = call i64 @${name}_expect(ptr %text, i64 %range_first, i64 %end, i8 44)
  %range_last = call i64 @${name}_number(ptr %text, i64 %range_comma, i64 %end, ptr %last_place)
  %range_after = call i64 @${name}_expect(ptr %text, i64 %range_last, i64 %end, i8 93)
  br label %following

following:
  %after = phi i64 [ %dtype_after, %dtype_wanted ], [ %dtype_after, %dtype_compare ],
                   [ %shape_skipped, %shape_skip ], [ %shape_after, %shape_compare ], [ %range_after, %range_part ]
  %bit = phi i64 [ 1, %dtype_wanted ], [ 1, %dtype_compare ], [ 2, %shape_skip ], [ 2, %shape_compare ],
                 [ 4, %range_part ]
  %seen_now = or i64 %seen, %bit
  %again = call i1 @${name}_is(ptr %text, i64 %after, i64 %end, i8 44)
  br i1 %again, label %comma, label %close
comma:
  %past = call i64 @${name}_expect(ptr %text, i64 %after, i64 %end, i8 44)
  br label %take
close:
  %closed = call i64 @${name}_expect(ptr %text, i64 %after, i64 %end, i8 125)
  %all = icmp eq i64 %seen_now, 7
  %result = select i1 %all, i64 %closed, i64 -1
  ret i64 %result
fail:
  ret i64 -1
}

; Σ word and Σ (2·index + 1)·word of so many bytes, the last word filled up with zeros.
define internal { i64, i64 } @${name}_sums(ptr %data, i64 %bytes) #0 {
begin:
  %rest = alloca i64, align 8
  %whole = lshr i64 %bytes, 3
  %left = and i64 %bytes, 7
  br label %look
look:
  %index = phi i64 [ 0, %begin ], [ %next, %take ]
  %plain = phi i64 [ 0, %begin ], [ %plain_now, %take ]
  %weighted = phi i64 [ 0, %begin ], [ %weighted_now, %take ]
  %more = icmp ult i64 %index, %whole
  br i1 %more, label %full, label %tail
full:
  %place = getelementptr i64, ptr %data, i64 %index
  %word = load i64, ptr %place, align 1
  br label %take
tail:
  %done = icmp ugt i64 %index, %whole
  %none = icmp eq i64 %left, 0
  %stop = or i1 %done, %none
  br i1 %stop, label %found, label %fill
fill:
  %tail_place = getelementptr i64, ptr %data, i64 %whole
  store i64 0, ptr %rest, align 8
  br label %byte_look
byte_look:
  %byte_index = phi i64 [ 0, %fill ], [ %byte_next, %byte_take ]
  %byte_more = icmp ult i64 %byte_index, %left
  br i1 %byte_more, label %byte_take, label %filled
byte_take:
  %byte_place = getelementptr i8, ptr %tail_place, i64 %byte_index
  %byte = load i8, ptr %byte_place, align 1
  %rest_place = getelementptr i8, ptr %rest, i64 %byte_index
  store i8 %byte, ptr %rest_place, align 1
  %byte_next = add i64 %byte_index, 1
  br label %byte_look
filled:
  %rest_word = load i64, ptr %rest, align 8
  br label %take
take:
  %value = phi i64 [ %word, %full ], [ %rest_word, %filled ]
  %twice = shl i64 %index, 1
  %odd = add i64 %twice, 1
  %product = mul i64 %odd, %value
  %plain_now = add i64 %plain, %value
  %weighted_now = add i64 %weighted, %product
  %next = add i64 %index, 1
  br label %look
found:
  %half = insertvalue { i64, i64 } poison, i64 %plain, 0
  %both = insertvalue { i64, i64 } %half, i64 %weighted, 1
  ret { i64, i64 } %both
}

; Reads a file into a block. Marks say which tensors have been found.
define internal i32 @${name}_read(ptr %file, i64 %bytes, ptr %block, ptr %sources) #0 {
begin:
  %first = alloca i64, align 8
  %range = alloca [2 x i64], align 8
  %sums = alloca [3 x i64], align 8
  %marks = alloca [$COUNT x i8], align 8
  %range_last = getelementptr i64, ptr %range, i64 1
  store i64 0, ptr %sums, align 8
  call void @llvm.memset.p0.i64(ptr %marks, i8 0, i64 $COUNT, i1 false)
  %has_length = icmp uge i64 %bytes, 8
  br i1 %has_length, label %measure, label %fail
measure:
  %end = load i64, ptr %file, align 1
  %behind = sub i64 %bytes, 8
  %fits = icmp ule i64 %end, %behind
  br i1 %fits, label %open, label %fail
open:
  %text = getelementptr i8, ptr %file, i64 8
  %data = getelementptr i8, ptr %text, i64 %end
  %data_bytes = sub i64 %behind, %end
  %opened = call i64 @${name}_expect(ptr %text, i64 0, i64 %end, i8 123)
  %empty = call i1 @${name}_is(ptr %text, i64 %opened, i64 %end, i8 125)
  br i1 %empty, label %close, label %entry
entry:
  %here = phi i64 [ %opened, %open ], [ %past, %comma ]
  %named = call i64 @${name}_string(ptr %text, i64 %here, i64 %end, ptr %first)
  %colon = call i64 @${name}_expect(ptr %text, i64 %named, i64 %end, i8 58)
  %bad = icmp eq i64 %colon, -1
  br i1 %bad, label %fail, label %choose
choose:
  %name_first = load i64, ptr %first, align 8
  %is_metadata = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr @${name}_word_metadata, i64 12)
  br i1 %is_metadata, label %metadata, label %find
metadata:
  %metadata_after = call i64 @${name}_metadata(ptr %text, i64 %colon, i64 %end, ptr %sums)
  br label %following

find:
  %index = phi i64 [ 0, %choose ], [ %next_index, %compare ]
  %more = icmp ult i64 %index, $COUNT
  br i1 %more, label %compare, label %unknown
compare:
  %want = getelementptr %${name}_wanted, ptr @${name}_wants, i64 %index
  %want_name = load ptr, ptr %want
  %length_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 3
  %length = load i64, ptr %length_field
  %next_index = add i64 %index, 1
  %same = call i1 @${name}_same(ptr %text, i64 %name_first, i64 %named, ptr %want_name, i64 %length)
  br i1 %same, label %known, label %find
unknown:
  %unknown_after = call i64 @${name}_tensor(ptr %text, i64 %colon, i64 %end, ptr null, ptr %range)
  br label %following
known:
  %mark = getelementptr i8, ptr %marks, i64 %index
  %marked = load i8, ptr %mark, align 1
  %fresh = icmp eq i8 %marked, 0
  store i8 1, ptr %mark, align 1
  %known_after = call i64 @${name}_tensor(ptr %text, i64 %colon, i64 %end, ptr %want, ptr %range)
  %known_bad = icmp eq i64 %known_after, -1
  %begin_at = load i64, ptr %range, align 8
  %end_at = load i64, ptr %range_last, align 8
  %found_bytes = sub i64 %end_at, %begin_at
  %bytes_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 6
  %want_bytes = load i64, ptr %bytes_field
  %right_size = icmp eq i64 %found_bytes, %want_bytes
  %inside = icmp ule i64 %end_at, %data_bytes
  %good = and i1 %right_size, %inside
  %good_range = and i1 %good, %fresh
  %not_bad = xor i1 %known_bad, true
  %take = and i1 %good_range, %not_bad
  br i1 %take, label %copy, label %fail
copy:
  %source = getelementptr i8, ptr %data, i64 %begin_at
  %place_field = getelementptr %${name}_wanted, ptr %want, i32 0, i32 7
  %place = load i64, ptr %place_field
  %stays = icmp slt i64 %place, 0
  br i1 %stays, label %point, label %move
point:
  %number = xor i64 %place, -1
  %source_place = getelementptr ptr, ptr %sources, i64 %number
  store ptr %source, ptr %source_place
  br label %following
move:
  %target = getelementptr i8, ptr %block, i64 %place
  call void @llvm.memmove.p0.p0.i64(ptr %target, ptr %source, i64 %want_bytes, i1 false)
  br label %following

following:
  %after = phi i64 [ %metadata_after, %metadata ], [ %unknown_after, %unknown ], [ %known_after, %point ],
                   [ %known_after, %move ]
  %again = call i1 @${name}_is(ptr %text, i64 %after, i64 %end, i8 44)
  br i1 %again, label %comma, label %close
comma:
  %past = call i64 @${name}_expect(ptr %text, i64 %after, i64 %end, i8 44)
  br label %entry
close:
  %last = phi i64 [ %opened, %open ], [ %after, %following ]
  %closed = call i64 @${name}_expect(ptr %text, i64 %last, i64 %end, i8 125)
  %whole = icmp ne i64 %closed, -1
  br i1 %whole, label %rest, label %fail
rest:
  %beyond = call i64 @${name}_skip(ptr %text, i64 %closed, i64 %end)
  %nothing = icmp eq i64 %beyond, -1
  br i1 %nothing, label %missing, label %fail

missing:
  %position = phi i64 [ 0, %rest ], [ %next_position, %zero ], [ %next_position, %there ]
  %unchecked = icmp ult i64 %position, $COUNT
  br i1 %unchecked, label %there, label %verify
there:
  %mark_place = getelementptr i8, ptr %marks, i64 %position
  %is_marked = load i8, ptr %mark_place, align 1
  %next_position = add i64 %position, 1
  %was_found = icmp ne i8 %is_marked, 0
  br i1 %was_found, label %missing, label %absent
absent:
  %absent_want = getelementptr %${name}_wanted, ptr @${name}_wants, i64 %position
  %required_field = getelementptr %${name}_wanted, ptr %absent_want, i32 0, i32 8
  %required = load i64, ptr %required_field
  %needed = icmp ne i64 %required, 0
  br i1 %needed, label %fail, label %zero
zero:
  %zero_bytes_field = getelementptr %${name}_wanted, ptr %absent_want, i32 0, i32 6
  %zero_bytes = load i64, ptr %zero_bytes_field
  %zero_place_field = getelementptr %${name}_wanted, ptr %absent_want, i32 0, i32 7
  %zero_place = load i64, ptr %zero_place_field
  %zero_target = getelementptr i8, ptr %block, i64 %zero_place
  call void @llvm.memset.p0.i64(ptr %zero_target, i8 0, i64 %zero_bytes, i1 false)
  br label %missing

verify:
  %flag = load i64, ptr %sums, align 8
  %has_sums = icmp ne i64 %flag, 0
  br i1 %has_sums, label %sum, label %done
sum:
  %found_sums = call { i64, i64 } @${name}_sums(ptr %data, i64 %data_bytes)
  %found_plain = extractvalue { i64, i64 } %found_sums, 0
  %found_weighted = extractvalue { i64, i64 } %found_sums, 1
  %plain_place = getelementptr i64, ptr %sums, i64 1
  %weighted_place = getelementptr i64, ptr %sums, i64 2
  %plain = load i64, ptr %plain_place, align 8
  %weighted = load i64, ptr %weighted_place, align 8
  %plain_right = icmp eq i64 %plain, %found_plain
  %weighted_right = icmp eq i64 %weighted, %found_weighted
  %right = and i1 %plain_right, %weighted_right
  br i1 %right, label %done, label %fail
done:
  ret i32 0
fail:
  ret i32 $EWEIGHTS
}
""")


def reader(name: str, weights: Sequence[Weight]) -> str:
    """The function `name_read` and the table of what it looks for, as LLVM IR."""
    parts = [
        f"%{name}_wanted = type {{ ptr, ptr, ptr, i64, i64, i64, i64, i64, i64 }}",
        bytes_constant(f"{name}_sum_key", SUM_KEY.encode()),
        bytes_constant(f"{name}_word_dtype", b"dtype"),
        bytes_constant(f"{name}_word_shape", b"shape"),
        bytes_constant(f"{name}_word_range", b"data_offsets"),
        bytes_constant(f"{name}_word_metadata", b"__metadata__"),
    ]
    rows = []
    for number, weight in enumerate(weights):
        key, code = weight.key.encode(), CODES[weight.dtype.name].encode()
        sizes = ", ".join(f"i64 {size}" for size in weight.shape)
        parts.append(bytes_constant(f"{name}_key{number}", key))
        parts.append(f"@{name}_sizes{number} = private unnamed_addr constant [{len(weight.shape)} x i64] [{sizes}]")
        parts.append(bytes_constant(f"{name}_code{number}", code))
        numbers = (len(key), len(weight.shape), len(code), weight.nbytes, weight.offset, int(weight.required))
        pointers = f"ptr @{name}_key{number}, ptr @{name}_sizes{number}, ptr @{name}_code{number}"
        rows.append(f"%{name}_wanted {{ {pointers}, {', '.join(f'i64 {value}' for value in numbers)} }}")
    body = ", ".join(rows)
    parts.append(f"@{name}_wants = internal constant [{len(rows)} x %{name}_wanted] [{body}]")
    parts.append(scanner(name))
    parts.append(_TEXT.substitute(
        name=name, COUNT=len(rows), KEY_BYTES=len(SUM_KEY), DIGITS=SUM_DIGITS, DIGITS_AND_QUOTE=SUM_DIGITS + 1,
        EWEIGHTS=int(Code.EWEIGHTS)))
    return "\n".join(parts)


def bytes_constant(symbol: str, content: bytes) -> str:
    """A constant of bytes that only its module sees."""
    text = "".join(chr(byte) if 32 <= byte < 127 and byte not in (34, 92) else f"\\{byte:02X}" for byte in content)
    return f'@{symbol} = private unnamed_addr constant [{len(content)} x i8] c"{text}"'

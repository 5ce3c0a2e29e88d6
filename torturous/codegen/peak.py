"""Kernels that do nothing but show what a machine can do: multiply-adds from registers, and a triad over memory."""

from __future__ import annotations

from string import Template

from torturous.codegen.target import Target

ROUNDS = 1 << 14
"""Times that a piece of the multiply-add kernel goes over its chains."""
TRIAD_PIECE = 1 << 16
"""Elements of a piece of the triad."""
TRIAD_LANES = 16

_MULTIPLY_ADDS = Template("""
$declarations
define void @KERNEL(ptr noalias %arguments, i64 %first_piece, i64 %last_piece, ptr noalias %scratch) #0 {
entry:
  %count = sub i64 %last_piece, %first_piece
  %rounds = mul i64 %count, $rounds
  %sink = load ptr, ptr %arguments
  %factor = load $vector, ptr %sink
  br label %loop

loop:
  %round = phi i64 [ 0, %entry ], [ %next_round, %loop ]
$chains
$steps
  %next_round = add i64 %round, 1
  %more = icmp ult i64 %next_round, %rounds
  br i1 %more, label %loop, label %done

done:
$sum
  store $vector %s$last, ptr %scratch, align 64
  ret void
}
attributes #0 = { $attributes }
""")

_TRIAD = Template("""
define void @KERNEL(ptr noalias %arguments, i64 %first_piece, i64 %last_piece, ptr noalias %scratch) #0 {
entry:
  %second = getelementptr ptr, ptr %arguments, i64 1
  %third = getelementptr ptr, ptr %arguments, i64 2
  %a = load ptr, ptr %arguments
  %b = load ptr, ptr %second
  %c = load ptr, ptr %third
  %start = mul i64 %first_piece, $piece
  %stop = mul i64 %last_piece, $piece
  br label %loop

loop:
  %i = phi i64 [ %start, %entry ], [ %next, %loop ]
  %b_here = getelementptr float, ptr %b, i64 %i
  %c_here = getelementptr float, ptr %c, i64 %i
  %a_here = getelementptr float, ptr %a, i64 %i
  %x = load $vector, ptr %b_here, align 64
  %y = load $vector, ptr %c_here, align 64
  %z = fadd $vector %y, %y
  %w = fadd $vector %x, %z
  store $vector %w, ptr %a_here, align 64, !nontemporal !0
  %next = add i64 %i, $lanes
  %more = icmp ult i64 %next, %stop
  br i1 %more, label %loop, label %done

done:
  ret void
}
attributes #0 = { $attributes }
!0 = !{i32 1}
""")


def multiply_adds(target: Target) -> tuple[str, int]:
    """A kernel of independent chains of float32 multiply-adds in registers, and the operations of one piece.

    The first argument is the address of a vector of factors.
    """
    chains = target.registers - 4
    vector = f"<{target.lanes} x float>"
    intrinsic = f"@llvm.fma.v{target.lanes}f32"
    steps = []
    for chain in range(chains):
        if target.has_fma:
            steps.append(f"  %n{chain} = call {vector} {intrinsic}({vector} %c{chain}, {vector} %factor, "
                         f"{vector} %factor)")
        else:
            steps += [f"  %p{chain} = fmul {vector} %c{chain}, %factor",
                      f"  %n{chain} = fadd {vector} %p{chain}, %factor"]
    sums = [f"  %s{chain} = fadd {vector} {f'%s{chain - 1}' if chain else 'zeroinitializer'}, %n{chain}"
            for chain in range(chains)]
    text = _MULTIPLY_ADDS.substitute(
        declarations=f"declare {vector} {intrinsic}({vector}, {vector}, {vector})" if target.has_fma else "",
        vector=vector, rounds=ROUNDS, attributes=target.attributes(), last=chains - 1, sum="\n".join(sums),
        chains="\n".join(f"  %c{chain} = phi {vector} [ zeroinitializer, %entry ], [ %n{chain}, %loop ]"
                         for chain in range(chains)),
        steps="\n".join(steps),
    )
    return text, 2 * ROUNDS * chains * target.lanes


def triad(target: Target) -> str:
    """a = b + 2·c over float32, stored past the caches; the arguments are the addresses of a, b and c."""
    return _TRIAD.substitute(vector=f"<{TRIAD_LANES} x float>", piece=TRIAD_PIECE, lanes=TRIAD_LANES,
                             attributes=target.attributes())

"""The driver: the fixed native function that walks a plan's table of kernels with all workers.

One function, `void torturous_drive(ptr control, i64 worker, ptr table, i64 entries)`:

- Worker 0, the calling thread, *leads* a run and returns when the whole table is done.
- Any other worker never comes back until it is dismissed: it waits for pieces, does what it can get, and waits
  again. It looks at no `table` and no `entries` of its own.
- With one worker, the calling thread does everything without touching an atomic.
- In place of a worker, the calling thread gives OFFER to hand a table to whichever worker comes first, which leads
  it, and to return at once; JOIN to return when that run is over, which it leads itself if nobody has begun, and
  else helps with; DISMISS to send everyone home.

A *follower* of a run is whoever does pieces of it without leading it. Nothing is run and no one dismissed between an
offer and the join that belongs to it.

**The plan table** is that of `codegen.table`. A level has fewer than 2³² pieces; who does a piece is found out while
running.

**Who does what.** The pieces of a level, those of all its entries in a row, are numbered together, and claimed in
chunks of ⌊left / 2·workers⌋, but at least one: by worker 0 from the front, by others from the back, which gives
everyone about the same pieces, still in its caches, run after run. Chunks become smaller as the level empties, so
nobody waits longer than for one piece at its end. Pieces count alike, whatever they cost: `runtime.shares` makes those
of a level alike, and where they are few because some are large, they are claimed one by one. The leader needs nobody:
it claims until nothing is left, then waits only for chunks that others have claimed, and goes to the next level. It
does a level of a single piece without telling anyone. A follower that the scheduler has put aside is not missed, and
when it is back, it looks for pieces of whatever level is current.

**Offers.** The caller writes ENTRIES, raises AIRBORNE, writes the table to OFFERED and opens TURN. Who swaps OFFERED
for null leads. When all is done it lowers AIRBORNE and opens TURN once more, for a caller that has joined: it has
claimed pieces like any follower, and leaves once AIRBORNE is down. A swap that comes late finds null, or a later offer,
which it may lead as well as anyone: ENTRIES is read after the swap.

**The control block** is CONTROL_BYTES bytes, zero at first, in which Python sets WORKERS, SCRATCH,
SCRATCH_STRIDE and the function pointers of `waiting`; it outlives every run. Worker w gets the scratch memory
at SCRATCH + w·SCRATCH_STRIDE. Fields that different threads write at different times lie 128 bytes apart,
because x86 fetches cache lines in pairs.

**Claims.** CLAIMS is one 64-bit word: pieces from `front` (the lower half) up to `back` (the upper half) of
the current level are unclaimed. Beside it lies FIRST_ENTRY, the level's first entry. The leader writes it, then
CLAIMS with its own first chunk taken out, then opens the gate TURN. A claim is one compare-and-swap of CLAIMS.
What follows from it:

- *Every piece is done once*: all changes within a level are compare-and-swaps of the whole remaining range.
- *A level is over when all is done.* DONE counts the pieces that followers have finished, and the leader,
  which knows how many it did itself, waits until DONE has grown by the others. So nothing is claimed and
  unfinished when it goes on, or when the run returns; and `front` = `back`, so that nothing can be claimed
  either until it writes CLAIMS again, which therefore need not be a compare-and-swap.
- *Table, arguments, scratch memory and FIRST_ENTRY are read by a follower only between a successful claim and
  its addition to DONE*, when the level cannot end. All of them may be rewritten or freed between runs.
- *A claim that comes late fails or is right.* A follower may be put aside between reading CLAIMS and swapping
  it for as long as it likes. If the word has changed, the swap fails. If it is the same again, in another
  level or run, then just these pieces are unclaimed there, and since the follower reads what they are pieces
  of only after the swap, it does the right ones. So the word needs no epoch.
- *Everyone sees what went before.* Leader to follower: the swap acquires what the leader released with
  CLAIMS, directly or through others' swaps, which continue that release sequence. Follower to leader:
  additions to DONE release, and the last one that the leader acquires continues the sequences of the others.
  Follower to follower: through the leader, at the end of each level.

**Gates.** Threads wait at gates: a 32-bit value that changes when the gate opens, and beside it whether
someone may be asleep until it does. Followers wait at TURN, the leader at DONE. Who waits spins first (a
hand-over takes half a microsecond), then yields (spinning alone loses milliseconds when the scheduler has
taken the other thread off its core), then sleeps. No sleeper is forgotten. Who sleeps has (1) read the value,
(2) raised the flag, (3) gone to sleep, which the system refuses if the value has changed since (1). Who opens
(a) takes the flag down if it is up, (b) changes the value, (c) wakes everybody if the flag was up at (a) or
is up now. If the sleeper's (3) came before (b), so did its (2): either the flag is still up at (c), or
somebody took it down after (2), and he changes the value and wakes everybody after that, unless he had
changed it before (3), which would have been refused. In both cases the sleeper wakes up. If (1) came after
(b), the opening is already known.

A follower reads TURN before it tries to claim and waits for TURN to differ from that; so it misses neither a
level nor an offer, the end of one or its dismissal, all of which are written before TURN changes.
"""

from __future__ import annotations

from string import Template

from torturous.codegen.table import ENTRY_BYTES, walking
from torturous.codegen.waiting import Waiting, waiting

SYMBOL = "torturous_drive"

CONTROL_BYTES = 512
CLAIMS = 0
FIRST_ENTRY = 8
DISMISSED = 24
TURN = 32
OFFERED = 40
ENTRIES = 48
AIRBORNE = 56
DONE = 128
LEADER = 256
WORKERS = 384
SCRATCH = 392
SCRATCH_STRIDE = 400
FUNCTIONS = 408
"""Byte offsets of the control block's fields. CLAIMS to AIRBORNE share a cache line: a follower that waits at
TURN needs the others next, and nobody writes them while it waits."""

OFFER, JOIN, DISMISS = -1, -2, -3
"""What the calling thread asks for in place of a worker's number."""

SPINS = 1000
YIELDS = 2000
"""How often a waiting thread pauses, then yields, before it sleeps: about 0.03 ms and 1 ms."""

_TEXT = Template("""
; Sends a follower that is awake, but has nothing to do, off the leader's processor.
define internal void @driver_spread(ptr %control, i64 %worker) nounwind {
begin:
  %follows = icmp ne i64 %worker, 0
  br i1 %follows, label %avoid, label %done

avoid:
  call void @driver_avoid_leader(ptr %control)
  br label %done

done:
  ret void
}

; Waits until the gate's value differs from the one seen.
define internal void @driver_await(ptr %control, i64 %worker, ptr %gate, i32 %seen) nounwind {
arrive:
  %sleepers = getelementptr i8, ptr %gate, i64 4
  br label %look

look:
  %turn = phi i64 [ 0, %arrive ], [ %next_turn, %spin ], [ %next_turn, %yield ],
                 [ %next_turn, %aside ], [ %next_turn, %here ]
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
  %awake = icmp ult i64 %turn, $TURNS
  br i1 %awake, label %yield, label %sleep

yield:
  call void @driver_spread(ptr %control, i64 %worker)
  call void @driver_yield(ptr %control)
  br label %look

sleep:
  %flag_before = atomicrmw xchg ptr %sleepers, i32 1 seq_cst
  %follows = icmp ne i64 %worker, 0
  br i1 %follows, label %aside, label %here

aside:
  call void @driver_sleep_aside(ptr %control, ptr %gate, i32 %seen)
  call void @driver_spread(ptr %control, i64 %worker)
  br label %look

here:
  call void @driver_sleep(ptr %control, ptr %gate, i32 %seen)
  br label %look

pass:
  ret void
}

; Adds to the gate's value and wakes those who sleep there.
define internal void @driver_open(ptr %control, ptr %gate, i32 %step) nounwind {
look:
  %sleepers = getelementptr i8, ptr %gate, i64 4
  %early = load atomic i32, ptr %sleepers monotonic, align 4
  %raised = icmp ne i32 %early, 0
  br i1 %raised, label %lower, label %change

lower:
  store atomic i32 0, ptr %sleepers monotonic, align 4
  br label %change

change:
  %value_before = atomicrmw add ptr %gate, i32 %step seq_cst
  %late = load atomic i32, ptr %sleepers seq_cst, align 4
  %either = or i32 %early, %late
  %anyone = icmp ne i32 %either, 0
  br i1 %anyone, label %wake, label %done

wake:
  call void @driver_wake(ptr %control, ptr %gate)
  br label %done

done:
  ret void
}

; Claims a chunk of the current level. Returns its range of pieces, where it begins in the lower half and where
; it ends in the upper half; the two are the same if nothing is left.
define internal i64 @driver_claim(ptr %control, i64 %worker) nounwind {
begin:
  %claims = getelementptr i8, ptr %control, i64 $CLAIMS
  %workers_field = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers_field, align 8
  %parts = shl i64 %workers, 1
  %forward = icmp eq i64 %worker, 0
  %seen = load atomic i64, ptr %claims acquire, align 8
  br label %look

look:
  %word = phi i64 [ %seen, %begin ], [ %found, %take ]
  %front = and i64 %word, $HALF
  %back = lshr i64 %word, 32
  %left = sub i64 %back, %front
  %some = icmp ne i64 %left, 0
  br i1 %some, label %take, label %nothing

take:
  %scarce = icmp ult i64 %left, %parts
  %raised = select i1 %scarce, i64 %parts, i64 %left
  %size = udiv i64 %raised, %parts
  %next_front = add i64 %front, %size
  %next_back = sub i64 %back, %size
  %size_in_back = shl i64 %size, 32
  %without_front = add i64 %word, %size
  %without_back = sub i64 %word, %size_in_back
  %next_word = select i1 %forward, i64 %without_front, i64 %without_back
  %outcome = cmpxchg ptr %claims, i64 %word, i64 %next_word acq_rel acquire, align 8
  %found = extractvalue { i64, i1 } %outcome, 0
  %mine = extractvalue { i64, i1 } %outcome, 1
  br i1 %mine, label %claimed, label %look

claimed:
  %first = select i1 %forward, i64 %front, i64 %next_back
  %last = select i1 %forward, i64 %next_front, i64 %back
  %last_in_back = shl i64 %last, 32
  %range = or i64 %last_in_back, %first
  ret i64 %range

nothing:
  ret i64 0
}

; Does a range of a level's pieces; `level` is the level's first entry.
define internal void @driver_execute(
    ptr %control, i64 %worker, ptr %level, i64 %level_first, i64 %level_last) nounwind {
begin:
  %scratch_field = getelementptr i8, ptr %control, i64 $SCRATCH
  %stride_field = getelementptr i8, ptr %control, i64 $SCRATCH_STRIDE
  %scratch_base = load ptr, ptr %scratch_field, align 8
  %stride = load i64, ptr %stride_field, align 8
  %scratch_offset = mul i64 %worker, %stride
  %scratch = getelementptr i8, ptr %scratch_base, i64 %scratch_offset
  call void @driver_range(ptr %level, i64 %level_first, i64 %level_last, ptr %scratch)
  ret void
}

; Runs a table, level by level, with whoever else is there.
define internal void @driver_lead(ptr %control, i64 %worker, ptr %table, i64 %entries) nounwind {
begin:
  %claims = getelementptr i8, ptr %control, i64 $CLAIMS
  %first_entry_field = getelementptr i8, ptr %control, i64 $FIRST_ENTRY
  %turn = getelementptr i8, ptr %control, i64 $TURN
  %done = getelementptr i8, ptr %control, i64 $DONE
  %done_before = load atomic i32, ptr %done monotonic, align 4
  %forward = icmp eq i64 %worker, 0
  %workers_field = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers_field, align 8
  %parts = shl i64 %workers, 1
  br label %begin_level

begin_level:
  %level_index = phi i64 [ 0, %begin ], [ %next_index, %measure ], [ %next_index, %do_single ],
                         [ %next_index, %settle ]
  %settled = phi i32 [ %done_before, %begin ], [ %settled, %measure ], [ %settled, %do_single ],
                     [ %due, %settle ]
  %more = icmp ult i64 %level_index, %entries
  br i1 %more, label %measure, label %leave

measure:
  %measured = call { i64, i64 } @driver_level(ptr %table, i64 %level_index, i64 %entries)
  %next_index = extractvalue { i64, i64 } %measured, 0
  %pieces = extractvalue { i64, i64 } %measured, 1
  %level = getelementptr [$ENTRY_BYTES x i8], ptr %table, i64 %level_index
  switch i64 %pieces, label %publish [ i64 0, label %begin_level
                                       i64 1, label %do_single ]

do_single:
  call void @driver_execute(ptr %control, i64 %worker, ptr %level, i64 0, i64 1)
  br label %begin_level

publish:
  %scarce = icmp ult i64 %pieces, %parts
  %raised = select i1 %scarce, i64 %parts, i64 %pieces
  %chunk = udiv i64 %raised, %parts
  %others_pieces = sub i64 %pieces, %chunk
  %first_mine = select i1 %forward, i64 0, i64 %others_pieces
  %last_mine = select i1 %forward, i64 %chunk, i64 %pieces
  %front = select i1 %forward, i64 %chunk, i64 0
  %back = select i1 %forward, i64 %pieces, i64 %others_pieces
  %back_half = shl i64 %back, 32
  %word = or i64 %back_half, %front
  store ptr %level, ptr %first_entry_field, align 8
  store atomic i64 %word, ptr %claims release, align 8
  call void @driver_open(ptr %control, ptr %turn, i32 1)
  br label %do_chunk

do_chunk:
  %first = phi i64 [ %first_mine, %publish ], [ %next_first, %claim ]
  %last = phi i64 [ %last_mine, %publish ], [ %next_last, %claim ]
  %own_before = phi i64 [ 0, %publish ], [ %own, %claim ]
  call void @driver_execute(ptr %control, i64 %worker, ptr %level, i64 %first, i64 %last)
  %size = sub i64 %last, %first
  %own = add i64 %own_before, %size
  br label %claim

claim:
  %range = call i64 @driver_claim(ptr %control, i64 %worker)
  %next_first = and i64 %range, $HALF
  %next_last = lshr i64 %range, 32
  %some = icmp ne i64 %next_first, %next_last
  br i1 %some, label %do_chunk, label %count

count:
  %others = sub i64 %pieces, %own
  %others_count = trunc i64 %others to i32
  %due = add i32 %settled, %others_count
  br label %settle

settle:
  %value = load atomic i32, ptr %done acquire, align 4
  %finished = icmp eq i32 %value, %due
  br i1 %finished, label %begin_level, label %wait

wait:
  call void @driver_await(ptr %control, i64 %worker, ptr %done, i32 %value)
  br label %settle

leave:
  ret void
}

; Leads the run that is on offer, if nobody else has begun. Returns whether it did.
define internal i1 @driver_take_offer(ptr %control, i64 %worker) nounwind {
begin:
  %offered_field = getelementptr i8, ptr %control, i64 $OFFERED
  %table = load atomic ptr, ptr %offered_field acquire, align 8
  %nothing = icmp eq ptr %table, null
  br i1 %nothing, label %none, label %take

take:
  %outcome = cmpxchg ptr %offered_field, ptr %table, ptr null acq_rel acquire, align 8
  %mine = extractvalue { ptr, i1 } %outcome, 1
  br i1 %mine, label %lead, label %none

lead:
  %entries_field = getelementptr i8, ptr %control, i64 $ENTRIES
  %entries = load i64, ptr %entries_field, align 8
  call void @driver_lead(ptr %control, i64 %worker, ptr %table, i64 %entries)
  %airborne_field = getelementptr i8, ptr %control, i64 $AIRBORNE
  %turn = getelementptr i8, ptr %control, i64 $TURN
  store atomic i64 0, ptr %airborne_field release, align 8
  call void @driver_open(ptr %control, ptr %turn, i32 1)
  ret i1 true

none:
  ret i1 false
}

; Does pieces of whatever is run and leads what is offered, until the field `over` has the value `end`.
define internal void @driver_follow(ptr %control, i64 %worker, ptr %over, i64 %end) nounwind {
begin:
  %first_entry_field = getelementptr i8, ptr %control, i64 $FIRST_ENTRY
  %turn = getelementptr i8, ptr %control, i64 $TURN
  %done = getelementptr i8, ptr %control, i64 $DONE
  br label %look

look:
  %seen = load atomic i32, ptr %turn acquire, align 4
  br label %claim

claim:
  %range = call i64 @driver_claim(ptr %control, i64 %worker)
  %first = and i64 %range, $HALF
  %last = lshr i64 %range, 32
  %some = icmp ne i64 %first, %last
  br i1 %some, label %do_chunk, label %rest

do_chunk:
  %level = load ptr, ptr %first_entry_field, align 8
  call void @driver_execute(ptr %control, i64 %worker, ptr %level, i64 %first, i64 %last)
  %size = sub i64 %last, %first
  %count = trunc i64 %size to i32
  call void @driver_open(ptr %control, ptr %done, i32 %count)
  br label %claim

rest:
  %led = call i1 @driver_take_offer(ptr %control, i64 %worker)
  br i1 %led, label %look, label %ask

ask:
  %state = load atomic i64, ptr %over acquire, align 8
  %ended = icmp eq i64 %state, %end
  br i1 %ended, label %leave, label %wait

wait:
  call void @driver_await(ptr %control, i64 %worker, ptr %turn, i32 %seen)
  br label %look

leave:
  ret void
}

define void @$SYMBOL(ptr %control, i64 %worker, ptr %table, i64 %entries) nounwind {
begin:
  %dismissed_field = getelementptr i8, ptr %control, i64 $DISMISSED
  %offered_field = getelementptr i8, ptr %control, i64 $OFFERED
  %entries_field = getelementptr i8, ptr %control, i64 $ENTRIES
  %airborne_field = getelementptr i8, ptr %control, i64 $AIRBORNE
  %turn = getelementptr i8, ptr %control, i64 $TURN
  switch i64 %worker, label %follow [ i64 0, label %run
                                      i64 $OFFER, label %offer
                                      i64 $JOIN, label %join
                                      i64 $DISMISS, label %dismiss ]

run:
  %workers_field = getelementptr i8, ptr %control, i64 $WORKERS
  %workers = load i64, ptr %workers_field, align 8
  %single = icmp eq i64 %workers, 1
  br i1 %single, label %walk_alone, label %lead

walk_alone:
  %scratch_field = getelementptr i8, ptr %control, i64 $SCRATCH
  %scratch = load ptr, ptr %scratch_field, align 8
  call void @driver_walk(ptr %table, i64 %entries, ptr %scratch)
  ret void

lead:
  call void @driver_note_leader(ptr %control)
  call void @driver_lead(ptr %control, i64 0, ptr %table, i64 %entries)
  ret void

offer:
  ; Who leads in the caller's place must leave the caller its processor.
  call void @driver_note_leader(ptr %control)
  store i64 %entries, ptr %entries_field, align 8
  store atomic i64 1, ptr %airborne_field monotonic, align 8
  store atomic ptr %table, ptr %offered_field release, align 8
  call void @driver_open(ptr %control, ptr %turn, i32 1)
  ret void

join:
  call void @driver_note_leader(ptr %control)
  call void @driver_follow(ptr %control, i64 0, ptr %airborne_field, i64 0)
  ret void

dismiss:
  store atomic i64 1, ptr %dismissed_field release, align 8
  call void @driver_open(ptr %control, ptr %turn, i32 1)
  ret void

follow:
  call void @driver_follow(ptr %control, i64 %worker, ptr %dismissed_field, i64 1)
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
        SYMBOL=SYMBOL, ENTRY_BYTES=ENTRY_BYTES, CLAIMS=CLAIMS, FIRST_ENTRY=FIRST_ENTRY, DISMISSED=DISMISSED,
        TURN=TURN, OFFERED=OFFERED, ENTRIES=ENTRIES, AIRBORNE=AIRBORNE, OFFER=OFFER, JOIN=JOIN, DISMISS=DISMISS,
        DONE=DONE, WORKERS=WORKERS, SCRATCH=SCRATCH, SCRATCH_STRIDE=SCRATCH_STRIDE, HALF=0xFFFFFFFF,
        SPINS=SPINS, TURNS=SPINS + YIELDS,
    )
    return Waiting(system_part.functions, system_part.text + walking("driver", "nounwind") + text)

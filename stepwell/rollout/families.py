"""The task families: groups of small real functions, each line with its one-line specification as a trailing comment.

A family has its own nouns (function names, arguments and comments), so holding families out is a real split: what
carries over is the fixed vocabulary of operations (plus, minus, times, over, mod, below, at most, above, at least,
equals, differs from, smaller of, larger of, sum of, count of, any, all, and, or), never the names.

Definitions are text, one function a line: `name arg:kind ... | code # spec | code # spec`. Kinds of argument: `n` an
integer from 0 to 12, `p` an integer from 1 to 6, `l` a list of 1 to 4 integers from 0 to 9, `w` a word of 1 to 4
letters. A function of two body lines is written on two lines.
What does not belong here: bugs, tests and tasks (`repair.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

Kind = Literal["n", "p", "l", "w"]


@dataclass(frozen=True)
class Function:
    """One function: its arguments with their kinds, and its body lines as written in the module, comment included."""

    name: str
    args: tuple[tuple[str, Kind], ...]
    body: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the source lines, definition first."""
        return [f"def {self.name}({', '.join(name for name, _ in self.args)}):", *self.body]


_TEXT: dict[str, str] = {
    "prices": """
net_price price:n tax:n | return price + tax # price plus tax
sale_cost cost:n discount:n | return cost - discount # cost minus discount
bulk_pay unit:n pack:n | return unit * pack + 2 # unit times pack plus 2
is_cheap money:n budget:n | return money <= budget # money at most budget
best_offer offer:n deal:n | return min(offer, deal) # smaller of offer and deal
post_fee fee:n parcel:n | if parcel > 5: return fee # parcel above 5 gives fee
  | return fee * 2 # else fee times 2
split_bill bill:n payer:p | return bill // payer # bill over payer
""",
    "clock": """
minute_of minute:n hour:n | return minute + hour * 60 # minute plus hour times 60
alarm_in current:n alarm:n | return alarm - current # alarm minus current
dial_tick tick:n dial:p | return tick % dial # tick mod dial
is_late arrive:n due:n | return arrive > due # arrive above due
later_shift dawn:n dusk:n | return max(dawn, dusk) # larger of dawn and dusk
is_noon second:n zone:n | return second == zone + 3 # second equals zone plus 3
nap_wake nap:n wake:n | if nap < 4: return wake # nap below 4 gives wake
  | return wake + 1 # else wake plus 1
""",
    "grid": """
cell_index row:n width:p column:n | return row * width + column # row times width plus column
step_gap low:n high:n | return high - low # high minus low
row_of cell:n span:p | return cell // span # cell over span
in_grid spot:n edge:n | return spot < edge # spot below edge
far_corner north:n east:n | return max(north, east) # larger of north and east
on_border tile:n rim:n | return tile == 0 or tile == rim # tile equals 0 or tile equals rim
wrap_move move:n side:p | return (move + 1) % side # move plus 1 mod side
""",
    "scores": """
final_score score:n bonus:n | return score + bonus # score plus bonus
after_foul point:n foul:n | return point - foul * 2 # point minus foul times 2
did_pass mark:n bar:n | return mark >= bar # mark at least bar
top_result result:l | return max(result) # larger of result
round_sum round:l prize:n | return sum(round) + prize # sum of round plus prize
all_won game:l goal:n | return all(x >= goal for x in game) # all game at least goal
medal rank:n gold:n | if rank < 3: return gold # rank below 3 gives gold
  | return gold - 1 # else gold minus 1
""",
    "queue": """
line_len guest:l | return len(guest) # count of guest
wait_time ahead:n serve:n | return ahead * serve # ahead times serve
is_full seat:n crowd:n | return crowd >= seat # crowd at least seat
next_desk ticket:n desk:p | return ticket % desk # ticket mod desk
join_line people:n group:n | return people + group # people plus group
can_enter age:n ban:n | return age > 6 and age != ban # age above 6 and age differs from ban
short_line first:n other:n | return min(first, other) # smaller of first and other
""",
    "text": """
add_suffix stem:w suffix:w | return stem + suffix # stem plus suffix
word_space word:w blank:n | return len(word) + blank # count of word plus blank
is_long page:w quota:n | return len(page) > quota # count of page above quota
echo_letter letter:w echo:p | return letter * echo # letter times echo
same_title title:w label:w | return title == label # title equals label
sorted_verse verse:w rhyme:w | return min(verse, rhyme) # smaller of verse and rhyme
pad_size margin:n indent:n | if margin < 2: return indent # margin below 2 gives indent
  | return indent + 2 # else indent plus 2
""",
    "stock": """
box_count crate:n shelf:n | return crate * shelf # crate times shelf
after_sold depot:n sold:n | return depot - sold # depot minus sold
must_order supply:n demand:n | return supply < demand # supply below demand
pallet_load item:n pallet:p | return item // pallet # item over pallet
any_empty bin:l | return any(x == 0 for x in bin) # any bin equals 0
new_lot lot:n arrival:n | return lot + arrival + 1 # lot plus arrival plus 1
safe_stack weight:n stack:n | return min(weight, stack * 2) # smaller of weight and stack times 2
""",
    "travel": """
trip_toll fare:n toll:n | return fare + toll * 2 # fare plus toll times 2
miles_more route:n driven:n | return route - driven # route minus driven
speed_of mile:n lap:p | return mile // lap # mile over lap
is_near station:n radius:n | return station <= radius # station at most radius
longest_leg leg:l | return max(leg) # larger of leg
fuel_stop fuel:n tank:n | if fuel < 3: return tank # fuel below 3 gives tank
  | return tank - fuel # else tank minus fuel
bus_seats bus:n rider:n | return bus * 4 - rider # bus times 4 minus rider
""",
    "kitchen": """
flour_for cake:n flour:n | return cake * flour # cake times flour
bake_rest bake:n rest:n | return bake + rest + 5 # bake plus rest plus 5
each_slice pizza:n diner:p | return pizza // diner # pizza over diner
is_hot oven:n heat:n | return oven >= heat # oven at least heat
cup_over milk:n cup:p | return milk % cup # milk mod cup
small_pan pan:n pot:n | return min(pan, pot) # smaller of pan and pot
salt_for soup:n salt:n | if soup > 6: return salt # soup above 6 gives salt
  | return salt - 1 # else salt minus 1
""",
    "library": """
book_pile novel:n comic:n | return novel + comic # novel plus comic
day_fine day:n fine:n | return day * fine - 1 # day times fine minus 1
rack_packed volume:n rack:n | return volume == rack # volume equals rack
pages_todo chapter:n read:n | return chapter - read # chapter minus read
thick_book tome:l | return max(tome) # larger of tome
can_lend loan:n card:n | return loan < 5 and card != 0 # loan below 5 and card differs from 0
copy_each copy:n branch:p | return copy // branch # copy over branch
""",
    "ledger": """
new_balance balance:n deposit:n | return balance + deposit # balance plus deposit
after_debt asset:n debt:n | return asset - debt # asset minus debt
interest loaned:n percent:n | return loaned * percent + 1 # loaned times percent plus 1
is_broke wallet:n rent:n | return wallet < rent # wallet below rent
each_heir estate:n heir:p | return estate // heir # estate over heir
big_entry entry:l | return max(entry) # larger of entry
audit claim:n proof:n | if claim > 7: return proof # claim above 7 gives proof
  | return claim + proof # else claim plus proof
""",
    "sensor": """
raw_signal signal:n noise:n | return signal - noise # signal minus noise
scaled volt:n gain:n | return volt * gain # volt times gain
is_alert reading:n threshold:n | return reading >= threshold # reading at least threshold
mean_probe probe:l | return sum(probe) // len(probe) # sum of probe over count of probe
peak_of pulse:n wave:n | return max(pulse, wave) # larger of pulse and wave
any_spike sample:l ceiling:n | return any(x > ceiling for x in sample) # any sample above ceiling
phase_of angle:n cycle:p | return (angle + 2) % cycle # angle plus 2 mod cycle
""",
    "garden": """
seed_bed bed:n seed:n | return bed * seed # bed times seed
plant_pair plant:n sprout:n | return plant + sprout # plant plus sprout
after_frost bloom:n frost:n | return bloom - frost - 1 # bloom minus frost minus 1
is_dry soil:n rain:n | return soil + rain < 9 # soil plus rain below 9
tall_tree oak:n pine:n | return max(oak, pine) # larger of oak and pine
per_furrow bulb:n furrow:p | return bulb // furrow # bulb over furrow
watering water:n weed:n | if weed == 0: return water # weed equals 0 gives water
  | return water - weed # else water minus weed
""",
}


def _parse(text: str) -> tuple[Function, ...]:
    """Read the definitions of one family."""
    functions = []
    for line in text.strip().replace("\n  |", " |").splitlines():
        head, *body = (part.strip() for part in line.split(" | "))
        name, *args = head.split()
        pairs = tuple((arg.split(":")[0], cast(Kind, arg.split(":")[1])) for arg in args)
        functions.append(Function(name, pairs, tuple("    " + part.replace(" # ", "  # ") for part in body)))
    return tuple(functions)


FAMILIES: dict[str, tuple[Function, ...]] = {family: _parse(text) for family, text in _TEXT.items()}
EVAL_FAMILIES: tuple[str, ...] = ("ledger", "sensor", "garden")
TRAIN_FAMILIES: tuple[str, ...] = tuple(name for name in FAMILIES if name not in EVAL_FAMILIES)

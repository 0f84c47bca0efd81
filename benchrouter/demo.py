"""A small synthetic benchmark: prompts from templates, outcomes from a stated skill matrix.

Nothing here was measured on a real LLM. It is there so that every step can be tried in a minute.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.table import BenchmarkTable

SEED = 20230927
PROMPTS_PER_DATASET = 130

# name, billions of parameters, US$ per million tokens in and out; all invented
MODELS = (
    ("general-70b", 70.0, 0.90, 0.90),
    ("general-34b", 34.0, 0.60, 0.60),
    ("maths-13b", 13.0, 0.25, 0.25),
    ("code-15b", 15.0, 0.30, 0.30),
    ("language-12b", 12.0, 0.20, 0.20),
    ("small-3b", 3.0, 0.06, 0.06),
)

# The chance that a model is right on a prompt of the dataset, in the order of MODELS. Three pairs
# are siblings (numbers, code, sentences); geography and sentiment stand alone.
SKILLS = {
    "arithmetic": (0.72, 0.60, 0.88, 0.62, 0.38, 0.30),
    "code_output": (0.66, 0.55, 0.48, 0.86, 0.25, 0.22),
    "code_repair": (0.68, 0.56, 0.42, 0.88, 0.28, 0.20),
    "geography": (0.84, 0.76, 0.45, 0.42, 0.66, 0.50),
    "grammar": (0.78, 0.70, 0.42, 0.38, 0.89, 0.46),
    "sentiment": (0.86, 0.84, 0.70, 0.62, 0.88, 0.78),
    "translation": (0.76, 0.66, 0.35, 0.32, 0.87, 0.40),
    "unit_conversion": (0.70, 0.58, 0.86, 0.58, 0.36, 0.28),
}

# A new task, in no dataset: near arithmetic and unit conversion.
NEW_TASK = "recipe scaling"
NEW_TASK_SKILLS = (0.71, 0.59, 0.87, 0.60, 0.37, 0.29)
N_LABELS = 30


@dataclass(frozen=True)
class Demo:
    """The synthetic benchmark and the new task.

    Attributes
    ----------
    table : BenchmarkTable
    skills : float64 array, shape (n_datasets, n_models)
        Chance that a model is right, as stated.
    new_task : list of str
        Prompts of a task that is in no dataset.
    new_task_skills : float64 array, shape (n_models,)
    labels : float32 array, shape (n_labels, n_models)
        Outcomes on the first prompts of the new task, drawn with its skills.
    """

    table: BenchmarkTable
    skills: NDArray[np.float64]
    new_task: list[str]
    new_task_skills: NDArray[np.float64]
    labels: NDArray[np.float32]


def make_demo(*, n: int = PROMPTS_PER_DATASET, seed: int = SEED) -> Demo:
    """Make the benchmark: `n` distinct prompts a dataset, outcomes drawn with the skills.

    Parameters
    ----------
    n : int
        Prompts in each dataset and in the new task, 1 to 200.
    seed : int

    Raises
    ------
    ValueError
        If `n` is out of range.
    """
    if not 1 <= n <= 200:
        raise ValueError(f"n is {n}, expected 1 to 200 prompts a dataset")
    rng = random.Random(seed)
    datasets = tuple(sorted(SKILLS))
    skills = np.array([SKILLS[name] for name in datasets])
    prompts = [prompt for name in datasets for prompt in _distinct(TEMPLATES[name], n, rng)]
    codes = np.repeat(np.arange(len(datasets), dtype=np.int32), n)
    outcomes = np.random.default_rng(seed)
    draws = outcomes.random((len(prompts), len(MODELS)))
    table = BenchmarkTable(
        scores=(draws < skills[codes]).astype(np.float32),
        dataset=codes,
        datasets=datasets,
        models=tuple(name for name, *_ in MODELS),
        sample_ids=[f"{datasets[code]}-{i % n}" for i, code in enumerate(codes)],
        prompts=prompts,
        source_rows=np.arange(len(prompts), dtype=np.int64),
        n_source_rows=len(prompts),
        cost_usd=None,
        log_likelihood=None,
        params_b=np.array([params for _, params, *_ in MODELS]),
        prices=np.array([prices for _, _, *prices in MODELS]),
        metrics=("accuracy",) * len(datasets),
        thresholds=np.full(len(datasets), 0.5),
        skipped=(),
    )
    new_task = _distinct(_recipe, n, rng)
    new_skills = np.array(NEW_TASK_SKILLS)
    labels = outcomes.random((min(N_LABELS, n), len(MODELS))) < new_skills
    return Demo(table, skills, new_task, new_skills, labels.astype(np.float32))


def handful(*, seed: int = SEED) -> list[str]:
    """Return one fresh prompt of every dataset and of the new task; list of str."""
    rng = random.Random(seed + 1)
    return [template(rng) for template in (*TEMPLATES.values(), _recipe)]


def _distinct(template: Callable[[random.Random], str], n: int, rng: random.Random) -> list[str]:
    prompts: dict[str, None] = {}
    while len(prompts) < n:
        prompts[template(rng)] = None
    return list(prompts)


# --- the templates -------------------------------------------------------------------------------

NAMES = ("Amina", "Bruno", "Chen", "Dalia", "Emeka", "Farida", "Goran", "Hana", "Ivo", "Juana")
GOODS = ("apples", "pencils", "stamps", "marbles", "tickets", "bottles", "tiles", "books")


def _arithmetic(rng: random.Random) -> str:
    a, b, c = rng.randint(12, 98), rng.randint(3, 29), rng.randint(2, 9)
    name, other = rng.sample(NAMES, 2)
    goods = rng.choice(GOODS)
    return rng.choice(
        (
            f"{name} has {a} {goods} and buys {b} more, then gives {c} to {other}. "
            f"How many {goods} does {name} have now?",
            f"Each of {c} boxes holds {b} {goods}. {name} takes out {a % b}. "
            f"How many {goods} are left in the boxes?",
            f"What is {a} times {b} plus {c}? Answer with a number.",
            f"{name} shares {a} {goods} equally among {c} friends. How many {goods} remain over?",
            f"{goods.capitalize()} cost {b} cents each. How many cents do {a} {goods} cost?",
        )
    )


UNITS = (
    ("kilometres", "miles"),
    ("kilograms", "pounds"),
    ("litres", "gallons"),
    ("metres", "feet"),
    ("grams", "ounces"),
    ("cups", "millilitres"),
    ("hectares", "acres"),
    ("centimetres", "inches"),
    ("tablespoons", "millilitres"),
)


def _unit_conversion(rng: random.Random) -> str:
    pair = rng.choice(UNITS)
    here, there = pair if rng.random() < 0.5 else pair[::-1]
    amount = rng.choice((rng.randint(2, 250), rng.randint(11, 99) / 10))
    return rng.choice(
        (
            f"Convert {amount} {here} to {there}. Give the number with two decimals.",
            f"How many {there} are {amount} {here}?",
            f"A package says {amount} {here}. What is that in {there}?",
        )
    )


def _code_output(rng: random.Random) -> str:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(10, 40)
    word = rng.choice(("lantern", "harbour", "pebble", "violet", "ladder", "meadow"))
    snippet = rng.choice(
        (
            f"total = 0\nfor i in range({a}, {c}, {b}):\n    total += i\nprint(total)",
            f"words = ['{word}' * {a}]\nprint(len(words[0]), words[0][{b}])",
            f"def f(n):\n    return 1 if n < {a} else f(n - {b}) + n\n\nprint(f({c}))",
            f"xs = [x * {a} for x in range({c}) if x % {b} == 0]\nprint(xs[-1])",
            f"d = {{'{word}': {a}}}\nd['{word}'] += {c}\nprint(d.get('{word}') // {b})",
            f"s = '{word}'\nprint(s[::-{a % 3 + 1}] + str({b} ** {a}))",
        )
    )
    return f"What does this Python program print?\n\n{snippet}"


FAULTS = (
    ("adds up a list", "total = 1", "total += x", "return total"),
    ("finds the largest number", "best = 0", "if x < best: best = x", "return best"),
    ("counts the even numbers", "n = 0", "if x % 2: n += 1", "return n"),
    ("reverses a list", "out = []", "out.append(x)", "return out"),
    ("joins words with commas", "text = ''", "text + ',' + x", "return text"),
    ("multiplies all numbers", "p = 0", "p *= x", "return p"),
)


def _code_repair(rng: random.Random) -> str:
    does, start, step, end = rng.choice(FAULTS)
    name, items = rng.choice(("run", "f", "work", "go")), rng.choice(("xs", "items", "data"))
    sample = [rng.randint(1, 40) for _ in range(3)]
    snippet = f"def {name}({items}):\n    {start}\n    for x in {items}:\n        {step}\n    {end}"
    return rng.choice(
        (
            f"This Python function {does}, but it is wrong. Correct it.\n\n{snippet}\n\n"
            f"print({name}({sample}))",
            f"Find the bug in this Python program, it {does}:\n\n{snippet}\n\n"
            f"print({name}({sample}))",
        )
    )


LANGUAGES = ("French", "German", "Spanish", "Italian", "Portuguese", "Dutch", "Polish", "Swedish")
WHO = ("My sister", "The old baker", "Our neighbour", "A young doctor", "The teacher", "His uncle")
DID = (
    "lost her umbrella on the train",
    "would like to plant roses this spring",
    "forgot to lock the garden gate",
    "has never seen the sea",
    "is learning to play the violin",
    "sold the little boat last summer",
    "always drinks tea without sugar",
    "could not sleep because of the storm",
)


def _translation(rng: random.Random) -> str:
    language, sentence = rng.choice(LANGUAGES), f"{rng.choice(WHO)} {rng.choice(DID)}."
    return rng.choice(
        (
            f'Translate into {language}: "{sentence}"',
            f"How do you say this in {language}? {sentence}",
            f'Give the {language} translation of the sentence "{sentence}"',
        )
    )


SLIPS = (("the ", ""), (" the ", " a the "), ("has", "have"), ("would like", "like would"))


def _grammar(rng: random.Random) -> str:
    sentence = f"{rng.choice(WHO)} {rng.choice(DID)}"
    right, wrong = rng.choice(SLIPS)
    faulty = sentence.replace(right, wrong, 1) if right in sentence else f"{sentence} yesterday by"
    return rng.choice(
        (
            f'Correct the grammar of this sentence: "{faulty}."',
            f"Is this good English? If not, rewrite it. {faulty}.",
            f'Which word is wrong in the sentence "{faulty}."?',
        )
    )


THINGS = ("film", "hotel room", "restaurant", "headset", "novel", "concert", "vacuum cleaner")
PRAISE = (
    "I would recommend it to anyone",
    "it was better than I had hoped",
    "every detail was a delight",
    "worth every cent",
    "the staff could not have been kinder",
)
BLAME = (
    "I want my money back",
    "it fell apart within a week",
    "what a waste of an evening",
    "nobody answered my complaints",
    "never again",
)


def _sentiment(rng: random.Random) -> str:
    thing = rng.choice(THINGS)
    first, second = rng.choice(PRAISE), rng.choice(BLAME)
    if rng.random() < 0.5:
        first, second = second, first
    return rng.choice(
        (
            f'Is this review positive or negative? "About the {thing}: {first}."',
            f'Review of a {thing}: "{first.capitalize()}, though some say: {second}." '
            "Is the reviewer satisfied?",
            f'Classify the sentiment of this comment on a {thing}: "{first.capitalize()}!"',
        )
    )


COUNTRIES = (
    "Portugal",
    "Kenya",
    "Peru",
    "Norway",
    "Vietnam",
    "Morocco",
    "Chile",
    "Nepal",
    "Finland",
    "Ghana",
    "Greece",
    "Bolivia",
    "Japan",
    "Egypt",
    "Hungary",
    "Mongolia",
    "Cuba",
    "Turkey",
    "Madagascar",
    "Iceland",
)


def _geography(rng: random.Random) -> str:
    country, other = rng.sample(COUNTRIES, 2)
    return rng.choice(
        (
            f"What is the capital of {country}?",
            f"Which countries share a border with {country}?",
            f"Which sea or ocean is nearest to the capital of {country}?",
            f"What is the highest mountain of {country}?",
            f"Does {country} lie farther north than {other}?",
            f"Which of the two has more inhabitants, {country} or {other}?",
            f"On which continent is {country}, and what is its longest river?",
        )
    )


DISHES = ("pancakes", "lentil soup", "flat bread", "apple cake", "risotto", "dumplings")
INGREDIENTS = (("flour", "grams"), ("milk", "millilitres"), ("sugar", "grams"), ("oil", "cups"))


def _recipe(rng: random.Random) -> str:
    dish, (what, unit) = rng.choice(DISHES), rng.choice(INGREDIENTS)
    amount, people, guests = rng.randint(2, 60) * 5, rng.randint(2, 6), rng.randint(7, 30)
    return rng.choice(
        (
            f"A recipe of {dish} for {people} people needs {amount} {unit} of {what}. "
            f"How many {unit} of {what} are needed for {guests} people?",
            f"{amount} {unit} of {what} make {people} portions of {dish}. "
            f"How much {what} do I need for {guests} portions?",
        )
    )


TEMPLATES = {
    "arithmetic": _arithmetic,
    "code_output": _code_output,
    "code_repair": _code_repair,
    "geography": _geography,
    "grammar": _grammar,
    "sentiment": _sentiment,
    "translation": _translation,
    "unit_conversion": _unit_conversion,
}

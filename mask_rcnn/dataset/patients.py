"""The patient of a film: by what the user states, else by the names of all films of a source.

Nobody's films may stand on both sides of training and validation, so a patient's films have to be known as such. Two
mistakes are to be avoided: films of one patient taken for several patients', which flatters every score, and all films of
a source taken for one patient's, which leaves nothing to validate on. Hence a name is judged among all the names of its
source: ``film_001, film_002, ...`` is a series, ``p012_1, p012_2, p013_1, ...`` is patients.

A patient is a text, unique within its source; the empty text is a patient who is not known. Paths are POSIX paths
relative to their source.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from mask_rcnn.films.folders import NAMELESS, is_class, is_holder, split_of
from mask_rcnn.films.names import film_stem

_YEAR = r"(?:19|20)\d\d"
_DAY = rf"{_YEAR}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])"

# Folders that hold one patient, the surest first: MIMIC-CXR has p10/p10000032. A number of three digits or more that is
# neither a year nor a date is a patient's.
_PATIENT_FOLDERS = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (
    r"(?:patient|pat|pa|pt|pid|person|subject|subj|sub|case|id)[-_ ]?\d+|sub-[a-z]*\d+[a-z0-9]*", r"p\d{4,}",
    rf"p\d+|(?!(?:{_YEAR}|{_DAY})$)\d{{3,}}",
))  # fmt: skip

# File names that hold the patient whatever the other names are: Kermany et al. (chest-xray-pneumonia), as Mendeley Data
# has them; ChestX-ray14; the films of one patient day by day in the COVID-19 image data collection (Cohen et al.), from
# which Kaggle's COVID-19 films come; BIDS; and names that say the word.
_SURE_NAMES = tuple(re.compile(pattern) for pattern in (
    r"(person\d+)_", r"((?:NORMAL|BACTERIA|VIRUS)-\d+)-\d+", r"(NORMAL\d*-IM-\d+)-\d+", r"(0\d{7})_\d{3}$",
    r"(.+?)[-_ ]day[-_ ]?\d+", r"(sub-[A-Za-z0-9]+)(?:_|$)",
    r"(?i:((?:patient|pat|pid|person|subject|subj|case|id)(?:[-_ ]?(?:no|nr|id))?[-_ ]?[a-z]?\d+)(?![a-z0-9]{2}))",
))  # fmt: skip
# Names that hold it where folders do not: those of Kermany et al. as Kaggle has them, which some DICOM viewers give to the
# films of every patient alike; a letter and a number, or a long number, before another one.
_LIKELY_NAMES = tuple(re.compile(pattern) for pattern in (
    r"(IM-\d+)-\d+", r"([PpSs]\d{2,})[-_ ]", rf"((?!{_DAY}[-_ ])\d{{5,}})[-_ ]\d{{1,3}}$",
))  # fmt: skip

# Any other numbering: a number, and after it whatever distinguishes a patient's films. The word before the number must not
# say that it counts films or sets of them.
_NUMBERED = re.compile(rf"(\D*(?!{_DAY}(?:\D|$))\d+)(?:[-_ ].+|[A-Za-z])$")
_COUNTS_OTHERS = re.compile(
    r"(?:set|fold|batch|part|group|class|grade|site|hospital|cent(?:er|re)|clinic|view|series|study|visit|page|frame|"
    r"slice|covid|ncov|cd|disk|disc|year|day|week|month|label|cluster|cohort|phase|level)s?[-_ ]?\d*",
    re.IGNORECASE,
)

# Folders of an exam or a series, as archives write them to CDs: ST000001, SE000001, E00001, a UID; and of a day.
_EXAM = re.compile(
    r"(?:study|series|exam|session|visit)[-_ ]?\d+|ses-\w+|(?:st|s|e|ex|ser|se|sr|dir)\d{3,}|\d+(?:\.\d+){4,}", re.IGNORECASE
)
_DATED = re.compile(rf"{_DAY}|{_YEAR}(?:[-_.]?(?:0[1-9]|1[0-2]))?")

# A patient's folder on a CD, counted from 1 on each.
_CD_PATIENT = re.compile(r"(?:pa|pat|pt|p)0\d{4,}|0{5,}\d{1,3}", re.IGNORECASE)

_RANDOM_PREFIX = re.compile(r"(?<![^/])([0-9a-f]{8})-(?=[^/]+$)")

MOST_FILMS = 50  # of an exam; what holds more is no exam's folder, whatever its name
USUAL_FILMS = 20  # of a patient, at most, by the median over a source of unknown naming


def patient_of(file_name: str) -> str:
    """The patient that a file name alone holds (``person12_virus_34.jpeg``: ``person12``), else the empty text."""
    stem = film_stem(file_name.rpartition("/")[2])
    return _first_match(_SURE_NAMES, stem) or _first_match(_LIKELY_NAMES, stem)


def _first_match(patterns: Iterable[re.Pattern[str]], stem: str) -> str:
    matches = (pattern.match(stem) for pattern in patterns)
    return next((match.group(1) for match in matches if match), "")


def patient_folders(folders: Sequence[str]) -> list[str]:
    """Those of a film's folders whose names are a patient's, the surest first."""
    return [folder for pattern in _PATIENT_FOLDERS for folder in folders if pattern.fullmatch(folder)]


def tell_patients(names: Sequence[str]) -> list[str]:
    """The patient of each film of a source, by the names of all of them; the empty text where they do not show it.

    The surest sign of a film's patient counts: names of patients, folders named after patients, folders that part the
    films as patients do, exams, and last what is usual in file names.

    Args:
        names: the films' paths relative to their source.
    """
    names = _without_prefixes(names)
    patients = [_first_match(_SURE_NAMES, film_stem(name.rpartition("/")[2])) for name in names]
    for rule in (_by_patient_folders, _by_branches, _by_exams, _by_likely_names, _by_numbers):
        unknown = [k for k, patient in enumerate(patients) if not patient]
        for k, patient in zip(unknown, rule([names[k] for k in unknown]), strict=True):
            patients[k] = patient
    return patients


def _without_prefixes(names: Sequence[str]) -> Sequence[str]:
    """The names without the eight random hexadecimal digits that Label Studio puts before all of a project's."""
    matches = [_RANDOM_PREFIX.search(name) for name in names]
    lettered = sum(re.search("[a-f]", match.group(1)) is not None for match in matches if match)
    if lettered * 2 <= len(names):
        return names
    return [_RANDOM_PREFIX.sub("", name) if match else name for name, match in zip(names, matches, strict=True)]


def _telling_folders(name: str) -> list[str]:
    """A film's folders but for those that part or hold the films of many patients."""
    return [
        folder for folder in name.split("/")[:-1]
        if not (is_holder(folder) or folder.lower() in NAMELESS or split_of(folder) or is_class(folder))
    ]  # fmt: skip


def _by_patient_folders(names: Sequence[str]) -> list[str]:
    """Folders whose names are a patient's.

    Where the folders above count their patients anew, as CDs do that lie side by side, these distinguish them.
    """
    paths = [_telling_folders(name) for name in names]
    numbers = {folder for folders in paths for folder in folders if re.fullmatch(r"\d{4}", folder)}
    years = {number for number in numbers if re.fullmatch(_YEAR, number)}
    if len(years) * 2 >= len(numbers):  # else patients have numbers of four digits, some of which could be years
        numbers -= years
    own = [
        next(iter(patient_folders(folders)), "") or next((folder for folder in folders if folder in numbers), "")
        for folders in paths
    ]
    own = _without_bare_numbers(own, paths)
    above = [
        tuple(folders[: folders.index(patient)]) if patient else () for patient, folders in zip(own, paths, strict=True)
    ]
    counted_anew = len({patient for patient in own if patient}) < len(set(above) - {()})
    patients = [
        _qualified(patient, folders) if patient and (counted_anew or _on_cd(patient, folders)) else patient
        for patient, folders in zip(own, above, strict=True)
    ]
    counts = Counter(patients)
    return [
        "/".join((*folders, patient)) if qualified != patient and counts[qualified] > USUAL_FILMS else qualified
        for qualified, patient, folders in zip(patients, own, above, strict=True)
    ]


def _without_bare_numbers(own: Sequence[str], paths: Sequence[Sequence[str]]) -> list[str]:
    """Folders that are numbers and nothing more are no patients' if they part the films otherwise, or hold all of them."""
    bare = Counter(patient for patient in own if patient and not _is_sure(patient))
    count = sum(bare.values())
    deep = all(folders[-1] != patient for patient, folders in zip(own, paths, strict=True) if patient in bare)
    if count <= 12 or (len(bare) == 1 and deep and count <= MOST_FILMS) or (len(bare) > 1 and count <= MOST_FILMS):
        return list(own)
    return list(own) if _part_as_patients(bare, deep=True) else [patient if _is_sure(patient) else "" for patient in own]


def _is_sure(folder: str) -> bool:
    return any(pattern.fullmatch(folder) for pattern in _PATIENT_FOLDERS[:2])


def _on_cd(patient: str, above: Sequence[str]) -> bool:
    """Whether a patient's folder is numbered as on a CD, and not in a folder of a day, whose patients may come again."""
    return _CD_PATIENT.fullmatch(patient) is not None and bool(above) and not _DATED.fullmatch(above[-1])


def _qualified(patient: str, above: Sequence[str]) -> str:
    # Of a patient's CDs, each with a day of its own, the folder above the days is the patient's.
    lasting = [folder for folder in above if not (_DATED.fullmatch(folder) or _EXAM.fullmatch(folder))]
    # Else it is the number of an exam, below a patient's name.
    counted = _is_sure(patient) or _CD_PATIENT.fullmatch(patient) or not lasting
    return "/".join((*(lasting or above), *((patient,) if counted else ())))


def _by_branches(names: Sequence[str]) -> list[str]:
    """Folders of any name, at the outermost level where they part the films as patients do: into many with few films."""
    patients = [""] * len(names)
    folders = [
        [folder for folder in _telling_folders(name) if not (_EXAM.fullmatch(folder) or _DATED.fullmatch(folder))]
        for name in names
    ]
    depths = [len(name.split("/")) - 1 for name in names]

    def part(films: Sequence[int], level: int) -> None:
        branches: dict[str, list[int]] = defaultdict(list)
        for k in films:
            if len(folders[k]) > level:
                branches[folders[k][level]].append(k)
        deep = all(depths[k] > level + 1 for branch in branches.values() for k in branch)
        if _part_as_patients({name: len(branch) for name, branch in branches.items()}, deep):
            for branch in branches.values():
                for k in branch:
                    patients[k] = "/".join(folders[k][: level + 1])
            return
        for branch in branches.values():
            part(branch, level + 1)

    part(range(len(names)), 0)
    return patients


def _part_as_patients(counts: Mapping[str, int], deep: bool) -> bool:
    """Whether folders (or numbers) with these counts of films may be patients'; ``deep`` where exams lie in them."""
    if deep and all(re.fullmatch(r"[A-Z]", name) for name in counts):
        return True  # CDs whose folders are letters
    if len(counts) < (2 if deep else 3) or all(_COUNTS_OTHERS.fullmatch(name.rpartition("/")[2]) for name in counts):
        return False
    sizes = sorted(counts.values())
    many = len(sizes) >= 8 and all(re.search(r"\d", name) for name in counts)  # numbers, which classes seldom have
    few_films_each = many or sizes[len(sizes) // 2] <= max(USUAL_FILMS, len(sizes) // 2)
    return few_films_each and sizes[-1] <= max(12, sum(sizes) // 2)


def _by_exams(names: Sequence[str]) -> list[str]:
    """The films of an exam are one patient's, even where nothing links a patient's exams."""
    patients = []
    for name in names:
        folders = _telling_folders(name)
        exam = next((k for k, folder in enumerate(folders) if _EXAM.fullmatch(folder)), None)
        patients.append("/".join(folders[: exam + 1]) if exam is not None else "")
    counts = Counter(patients)
    return [patient if counts[patient] <= MOST_FILMS else "" for patient in patients]


def _by_likely_names(names: Sequence[str]) -> list[str]:
    stems = [film_stem(name.rpartition("/")[2]) for name in names]
    folders_of: dict[str, set[str]] = defaultdict(set)
    for name, stem in zip(names, stems, strict=True):
        folders_of[stem].add("/".join(_telling_folders(name)))
    alike = [stem for stem in folders_of if len(folders_of[stem]) > 1]
    patients = [_first_match(_LIKELY_NAMES, stem) for stem in stems]
    counts = Counter(patient for patient in patients if patient)
    doubtful = sum(counts.values()) > 12 and not _part_as_patients(counts, deep=True)
    if doubtful or len(alike) > len(folders_of) // 2:
        return [""] * len(names)  # numbers that begin anew in every folder, or a single series
    return patients


def _by_numbers(names: Sequence[str]) -> list[str]:
    """``<word><number>_<anything>``, where the numbers come back as patients' do."""
    numbers = []
    for name in names:
        match = _NUMBERED.match(film_stem(name.rpartition("/")[2]))
        number = match.group(1) if match else ""
        numbers.append("" if _COUNTS_OTHERS.fullmatch(number) else number)
    by_folder = [
        "/".join((*_telling_folders(name), number)) if number else "" for name, number in zip(names, numbers, strict=True)
    ]
    for patients in (numbers, by_folder):  # the same number in two folders is one patient's, unless all begin anew
        counts = Counter(patient for patient in patients if patient)
        if counts and max(counts.values()) > 1 and _part_as_patients(counts, deep=True):
            return patients
    return [""] * len(names)


def state_patients(
    names: Sequence[str], fields: Sequence[str], table: tuple[str, Mapping[str, str]], pattern: str
) -> list[tuple[str, str]]:
    """The patient of each film of a source, and its source: the config's pattern, the table, the film's record, or its name.

    Args:
        names: the films' paths relative to their source.
        fields: the patient that each film's record states, or the empty text.
        table: as ``patient_tables.read_table`` gives it.
        pattern: ``data.patient_pattern``, a regular expression with one group, searched in the path; empty for none.
    """
    expression = re.compile(pattern) if pattern else None

    def stated(name: str, field: str) -> tuple[str, str]:
        match = expression.search(name) if expression else None
        if match and match.group(1):
            return match.group(1), "data.patient_pattern"
        if name in table[1]:
            return table[1][name], table[0]
        return (field, "its records") if field else ("", "")

    found = [stated(name, field) for name, field in zip(names, fields, strict=True)]
    by_name = tell_patients(names)
    return [own if own[0] else (guess, "the names" if guess else "") for own, guess in zip(found, by_name, strict=True)]


def describe_split(
    films: Iterable[tuple[str, str, str, str]], is_training: Callable[[str], bool]
) -> list[str]:
    """A line for each source: its films and patients, their split, and where the patients come from.

    Args:
        films: source, path, patient (empty where not known) and where that comes from, of each film.
        is_training: whether the film of a path is one to train with.
    """
    sources: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for source, *film in films:
        sources[source].append((film[0], film[1], film[2]))
    lines = []
    for source, own in sources.items():
        sides: dict[bool, list[str]] = {True: [], False: []}
        for path, patient, _ in own:
            sides[is_training(path)].append(f"patient {patient}" if patient else f"film {path}")
        to_train, train_films = len(set(sides[True])), len(sides[True])
        to_validate, validation_films = len(set(sides[False])), len(sides[False])
        ways = Counter(way for _, _, way in own if way)
        unknown = sum(not patient for _, patient, _ in own)
        line = (
            f"{source}: {_count(len(own), 'film')} of {_count(to_train + to_validate, 'patient')}: "
            f"{_count(to_train, 'patient')} ({_count(train_films, 'film')}) to train, {to_validate} ({validation_films}) "
            "to validate"
        )
        if ways:
            line += f"; patients told by {' and '.join(way for way, _ in ways.most_common())}"
        if unknown:
            line += f"; {_count(unknown, 'film')} whose patient is not known, each taken for a patient of its own"
        lines.append(line)
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

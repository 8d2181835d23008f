"""Site profiles: those that come with the project, and what is refused of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import ConfigError
from hpctrain.launch.script import clock
from hpctrain.launch.site import Queue, known_sites, load_site, project_directory, seconds_of

MINIMAL = "name: mine\ntitle: My cluster\n"


def profile(directory: Path, text: str) -> str:
    """A profile in a file; what --site takes for it."""
    path = directory / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_known_sites() -> None:
    public = {"perlmutter", "frontier", "lumi", "leonardo", "alps", "juwels-booster", "aurora"}
    assert set(known_sites()) == {"generic", "laptop", *public}


@pytest.mark.parametrize("name", known_sites())
def test_a_profile_is_named_after_its_file_and_cites_its_source_or_a_trial(name: str) -> None:
    site = load_site(name)
    assert site.name == name
    assert site.tried or site.sources
    assert all(source.url.startswith("https://") for source in site.sources)


@pytest.mark.parametrize(("name", "hint"), [("perlmuter", "did you mean perlmutter?"), ("x", "known: alps,")])
def test_an_unknown_name_lists_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no profile {name!r}") as caught:
        load_site(name)
    assert hint in str(caught.value)
    assert "lumi" in str(caught.value)


def test_a_profile_of_ones_own_is_given_by_its_path(tmp_path: Path) -> None:
    assert load_site(profile(tmp_path, MINIMAL)).title == "My cluster"


def test_every_problem_of_a_profile_names_its_file(tmp_path: Path) -> None:
    path = profile(tmp_path, MINIMAL + 'scheduler: lsf\nnodes: 3\nheader: ["a\\nb"]\n')
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    assert len(caught.value.problems) == 3
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("default_queue: long", "'long' is not one of the queues"),
        ("environment: {A B: c}", "not names of variables: 'A B'"),
        ("scheduler: pbs\nrequeue: true", "under Slurm only"),
        ("queues: {a: {limits: [{time: 24:00:00}]}}", "quote it"),
        ('queues: {a: {limits: [{time: "24:00"}]}}', "write HH:MM:SS or D-HH:MM:SS"),
        ("queues: {a: {limits: [{nodes: 8}, {nodes: 4}]}}", "smallest first"),
        ("queues: {a: {limits: [{}, {nodes: 4}]}}", "smallest first"),
    ],
)
def test_what_a_profile_cannot_say(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_site(profile(tmp_path, MINIMAL + text))


def test_a_limit_goes_by_the_number_of_nodes() -> None:
    queue = Queue.model_validate(
        {"limits": [{"nodes": 91, "time": "02:00:00"}, {"nodes": 183, "time": "06:00:00"}]}
    )
    assert [queue.longest(nodes) for nodes in (1, 91, 92, 183)] == ["02:00:00"] * 2 + ["06:00:00"] * 2
    assert queue.max_nodes == 183
    assert Queue().longest(10_000) is None


@given(st.integers(0, 999 * 3600 + 3599))
def test_a_time_survives_being_written(seconds: int) -> None:
    assert seconds_of(clock(seconds)) == seconds


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_days_count(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    assert seconds_of(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def test_an_installation_without_the_scripts_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpctrain.__file__", str(tmp_path / "site-packages" / "hpctrain" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="change to the checkout"):
        project_directory()
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "job.sh").touch()
    assert project_directory() == tmp_path

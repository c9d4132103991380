"""Names of a user's own code: what is found, and what each refusal says."""

import sys
from pathlib import Path

import pytest

from ssgd_analysis import references
from ssgd_analysis.errors import InputError


@pytest.fixture(autouse=True)
def import_state(monkeypatch):
    """Imports of one test must not show in the next."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("_ssgd_reference_", "user_")):
            del sys.modules[name]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", False),
        ("torchvision:resnet18", False),
        ("package.module:thing", True),
        ("path/to/file.py:thing", True),
        ("file.py", True),  # the refusal says what is missing
    ],
)
def test_what_is_a_reference(name, expected):
    assert references.is_reference(name) is expected


def test_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert references.absolute("file.py:make") == f"{tmp_path.resolve()}/file.py:make"
    assert references.absolute("a.module:make") == "a.module:make"
    assert references.absolute("resnet20") == "resnet20"
    assert references.absolute("torchvision:resnet18") == "torchvision:resnet18"


@pytest.mark.parametrize(
    ("files", "name", "kept"),
    [
        ({"user_plain.py": "def make(): return 1\n"}, "user_plain:make", "user_plain.py:make"),
        (
            {
                "user_kit/__init__.py": "",
                "user_kit/inner.py": "from .value import one\ndef make(): return one\n",
                "user_kit/value.py": "one = 1\n",
            },
            "user_kit.inner:make",
            "user_kit.inner:make",
        ),
        ({"user_space/inner.py": "def make(): return 1\n"}, "user_space.inner:make", None),
    ],
)
def test_a_module_is_found_again_from_elsewhere(tmp_path, monkeypatch, files, name, kept):
    for file, text in files.items():
        _write(tmp_path / "home" / file, text)
    monkeypatch.chdir(tmp_path / "home")
    found = references.absolute(name)
    assert found == f"{tmp_path.resolve()}/home/{kept or name}"
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p and str(tmp_path) not in p])
    assert references.absolute(found) == found
    assert references.resolve("model", found)() == 1


def test_installed_modules_keep_their_name():
    for name in ("torch.nn.functional:l1_loss", "math:fsum", "json:loads", "sys:exit"):
        assert references.absolute(name) == name


def test_two_packages_of_one_name_are_not_mixed_up(tmp_path):
    for place in "ab":
        _write(tmp_path / place / "user_twin" / "inner.py", "def make(): pass\n")
    references.resolve("model", f"{tmp_path}/a/user_twin.inner:make")
    with pytest.raises(InputError, match=r"in .*/b is hidden by .*/a/user_twin.* same name"):
        references.resolve("model", f"{tmp_path}/b/user_twin.inner:make")


# What is found


def test_a_file(tmp_path):
    path = _write(tmp_path / "user_one.py", "def make(): return 7\nclass A:\n  f = make\n")
    assert references.resolve("data", f"{path}:make")() == 7
    assert references.resolve("data", f"{path}:A.f")() == 7


def test_a_file_by_relative_path(tmp_path, monkeypatch):
    _write(tmp_path / "sub" / "user_two.py", "def make(): return 8\n")
    monkeypatch.chdir(tmp_path)
    assert references.resolve("data", "sub/user_two.py:make")() == 8


def test_a_file_finds_its_neighbours(tmp_path):
    _write(tmp_path / "user_neighbour.py", "value = 9\n")
    path = _write(
        tmp_path / "user_three.py",
        "import user_neighbour\ndef make(): return user_neighbour.value\n",
    )
    assert references.resolve("data", f"{path}:make")() == 9


def test_two_files_of_one_name_are_two(tmp_path):
    one = _write(tmp_path / "a" / "user_same.py", "def make(): return 1\n")
    two = _write(tmp_path / "b" / "user_same.py", "def make(): return 2\n")
    assert references.resolve("data", f"{one}:make")() == 1
    assert references.resolve("data", f"{two}:make")() == 2


def test_a_file_is_run_once(tmp_path):
    path = _write(
        tmp_path / "user_once.py", "calls = []\ndef make(): calls.append(1); return calls\n"
    )
    first = references.resolve("data", f"{path}:make")
    assert references.resolve("data", f"{path}:make") is first


def test_a_module_in_the_working_directory(tmp_path, monkeypatch):
    """An installed command does not have it on its path, but its user expects it."""
    _write(tmp_path / "user_package" / "inner.py", "def make(): return 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert references.resolve("model", "user_package.inner:make")() == 10


def test_an_installed_module():
    assert references.resolve("loss", "math:fsum")([0.5, 0.5]) == 1


# What is refused


@pytest.mark.parametrize(
    ("text", "attribute", "words"),
    [
        ("x = 3\n", "x", "is a int, not a callable"),
        ("def make(): pass\n", "mkae", "has no attribute 'mkae'"),
        ("def make(): pass\n", "make.inner", "has no attribute 'make.inner'"),
        ("import no_such_module_anywhere\n", "make", "no_such_module_anywhere"),
        ("def make(:\n", "make", "SyntaxError"),
        ("raise ValueError('at import')\n", "make", "ValueError: at import"),
        ("1 / 0\n", "make", "ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n", "make", "SystemExit"),
    ],
)
def test_files_that_do_not_do(tmp_path, text, attribute, words):
    path = _write(tmp_path / "user_bad.py", text)
    with pytest.raises(InputError) as caught:
        references.resolve("model", f"{path}:{attribute}")
    message = str(caught.value)
    assert message.startswith("model reference")
    assert f"{path}:{attribute}" in message
    assert words in message


def test_a_file_that_failed_is_tried_again(tmp_path):
    path = _write(tmp_path / "user_again.py", "1 / 0\n")
    with pytest.raises(InputError):
        references.resolve("model", f"{path}:make")
    path.write_text("def make(): return 'mended now, and longer'\n")
    assert references.resolve("model", f"{path}:make")()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere:make", "does not import"),
        ("no_such_file_anywhere.py:make", "there is no file"),
        (":make", "module:attribute"),
        ("module:", "module:attribute"),
        ("net.py", "'net.py' should be module:attribute or path.py:attribute"),
        ("math:nothing", "has no attribute 'nothing'"),
        ("math:pi", "not a callable"),
        (".relative:make", "does not import"),
    ],
)
def test_names_that_do_not_do(name, words):
    with pytest.raises(InputError, match=words):
        references.resolve("loss", name)


# Calling


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (lambda: (), ()),
        (lambda a: a, 1),
        (lambda *, b: b, 2),
        (lambda a, b: (a, b), (1, 2)),
        (lambda b, extra=5: (b, extra), (2, 5)),
        (lambda **every: every, {"a": 1, "b": 2}),
        (lambda *every: every, ()),
        (dict, {}),  # a builtin does not say what it accepts
    ],
)
def test_a_factory_gets_the_keywords_it_accepts(target, expected):
    assert references.call("model", "m", target, a=1, b=2) == expected


def test_a_factory_that_raises_is_named():
    def broken() -> None:
        raise KeyError("width")

    with pytest.raises(InputError, match=r"model 'mine\.py:broken' raised KeyError.*width"):
        references.call("model", "mine.py:broken", broken)


def test_a_factory_that_wants_more_is_named():
    with pytest.raises(InputError, match=r"model 'm' raised TypeError.*width"):
        references.call("model", "m", lambda width: width, a=1)


def test_a_factory_that_exits_is_an_error_of_the_input():
    """Scripts often parse their own arguments; their exit must not end the command as done."""
    with pytest.raises(InputError, match="SystemExit"):
        references.call("model", "m", lambda: sys.exit(0))

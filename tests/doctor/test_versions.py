import importlib.metadata

from headrace.doctor import versions


def test_this_environment_is_as_the_project_requires():
    assert versions.python().level == "ok"
    (found,) = versions.packages()
    assert found.level == "ok" and f"ray {importlib.metadata.version('ray')}" in found.found


def test_a_package_that_is_absent_or_another_is_an_error_with_what_to_install():
    ray = importlib.metadata.version("ray")
    missing, wrong = versions.packages(["no-such-package>=1", "ray[data]==1.*", "pyarrow>=1", "absent-too>=1; extra == 'test'"])
    assert (missing.check, missing.level, missing.found, missing.do) == (
        "no-such-package",
        "error",
        "not installed",
        "pip install 'no-such-package>=1'",
    )
    assert (wrong.check, wrong.level, wrong.do) == ("ray", "error", "pip install 'ray[data]==1.*'") and ray in wrong.found


def test_another_python_is_an_error():
    found = versions.python(">=4")
    assert found.level == "error" and ">=4 is required" in found.found and found.do

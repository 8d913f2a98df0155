"""The locale in which Ansible and other programs run."""

from __future__ import annotations

import locale
import os

# Every glibc of the last ten years has it built in or installed.
UTF8 = "C.UTF-8"


def use_utf8() -> None:
    """Have the programs that this process starts speak UTF-8, without which Ansible does not start.

    A login may have brought a locale that is not installed here, or `C`. One that is fit is left as it is.
    """
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        fit = (locale.getlocale()[1] or "").lower() in ("utf-8", "utf8")
    except (locale.Error, ValueError):
        fit = False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    if not fit:
        os.environ["LC_ALL"] = UTF8

"""A real Chromium, headless, driven by Playwright: the system's, or that of ``make tools``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

#: Names of other machines are not even looked up.
_FLAGS = ("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--disable-dev-shm-usage")

#: Pairs of text and background that are hard to read: WCAG 2.2, success criterion 1.4.3, without its lower
#: limit for large text.
LOW_CONTRAST = """
() => {
  const parse = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
    return { red, green, blue, alpha };
  };
  const linear = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const luminance = ({ red, green, blue }) =>
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha === 1) return colour;
    }
    return { red: 255, green: 255, blue: 255 };
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!own || style.visibility === "hidden" || !element.getClientRects().length) continue;
    if (["SCRIPT", "NOSCRIPT", "OPTION", "PROGRESS", "METER", "TITLE"].includes(element.tagName)) continue;
    const text = parse(element.tagName === "text" ? style.fill : style.color);
    const [low, high] = [luminance(text), luminance(behind(element))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) poor.push(`${element.tagName}.${element.className}: ${contrast.toFixed(2)}`);
  }
  return poor;
}
"""


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """``program`` running, with a profile that is deleted with it."""
    sandbox = () if os.geteuid() else ("--no-sandbox",)  # Chromium refuses to sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_FLAGS, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page of a fresh profile at ``url``; fails when it complained, or fetched anything elsewhere."""
    complaints: list[str] = []
    context = browser.new_context(base_url=url, **options)
    page = context.new_page()
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith(url) else complaints.append(sent.url))
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


def log_in(page: Page, key: str) -> None:
    page.goto("/console/login")
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("navigation", name="Pages").wait_for()

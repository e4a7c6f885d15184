"use strict";
// Shows the overview as it changes. Without this the page loads itself again.
(() => {
  const place = document.getElementById("live");
  const state = document.getElementById("live-state");
  if (!place || !state || !window.EventSource) return;
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  // A link that is replaced while it is pressed would not open.
  let pressed = false;
  place.addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel", "blur"]) {
    window.addEventListener(end, () => { pressed = false; });
  }

  const show = (text) => {
    if (pressed) return;
    // Whoever marks text, or reads with the keyboard, is not interrupted.
    const selection = window.getSelection();
    if (selection && !selection.isCollapsed && place.contains(selection.anchorNode)) return;
    const focused = place.contains(document.activeElement) ? document.activeElement : null;
    const link = focused && focused.getAttribute("href");
    const label = focused && focused.getAttribute("aria-label");
    const scrolled = [...place.querySelectorAll(".scroll")].map((region) => region.scrollLeft);
    place.innerHTML = text;
    place.querySelectorAll(".scroll").forEach((region, index) => { region.scrollLeft = scrolled[index] || 0; });
    const again = [...place.querySelectorAll("a, [tabindex]")].find((element) =>
      (link && element.getAttribute("href") === link) || (label && element.getAttribute("aria-label") === label));
    if (again) again.focus({ preventScroll: true });
  };

  const follow = () => {
    const events = new EventSource("/events");
    events.addEventListener("overview", (event) => { say("Live"); show(event.data); });
    events.addEventListener("error", () => {
      say("Not connected, trying again");
      // It was refused, as when too many follow or the login is over: the page says why.
      if (events.readyState === EventSource.CLOSED) window.setTimeout(() => window.location.reload(), 10000);
    });
  };
  follow();
})();

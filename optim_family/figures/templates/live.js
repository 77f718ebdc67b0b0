"use strict";
// A page of a server: takes over new records without a reload, and keeps what is open, hidden and zoomed.
const live = (() => {
  const PAUSE = 2000; // milliseconds
  const PARTS = ["data", "strip", "summary", "cards"];
  let version = null;

  function replace(fresh) {
    const open = new Set([...document.querySelectorAll("details.card[open]")].map((card) => card.id));
    // New settings, views or panels change the form; the address keeps its state.
    const form = (page) => page.getElementById("controls").textContent + page.querySelectorAll(".panel").length;
    if (form(fresh) !== form(document)) return location.reload();
    for (const id of PARTS) document.getElementById(id).replaceWith(document.adoptNode(fresh.getElementById(id)));
    for (const id of PARTS) enhance(document.getElementById(id));
    for (const id of open) document.getElementById(id).open = true;
    return figure.reload();
  }

  async function poll() {
    try {
      const answer = await fetch("/", { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
      const first = version === null;
      version = answer.headers.get("ETag") ?? version;
      if (answer.status === 200 && !first) await replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the server has ended, or pauses
    } finally {
      setTimeout(poll, PAUSE);
    }
  }

  poll();
})();

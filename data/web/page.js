// Keys reach the terminal once it has the focus; textual.js marks the page when its socket is open.
window.addEventListener("load", () => {
  const focus = () => {
    const { classList } = document.body;
    if (classList.contains("-loaded") && !classList.contains("-closed")) {
      document.querySelector(".xterm-helper-textarea")?.focus();
    }
  };
  new MutationObserver(focus).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  window.addEventListener("focus", focus);
});

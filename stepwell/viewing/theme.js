// Light or dark: what the system says, until somebody chooses; kept for the next page where the browser keeps anything.
{
  const root = document.documentElement;
  const kept = (value) => {
    try {
      return value ? localStorage.setItem("stepwell-theme", value) : localStorage.getItem("stepwell-theme");
    } catch {
      return null;
    }
  };
  const now = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const toggle = () => {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    kept(root.dataset.theme);
  };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  document.querySelector("#theme").addEventListener("click", toggle);
}

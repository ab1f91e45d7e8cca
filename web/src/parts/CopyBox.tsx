import { useState } from "preact/hooks";

/** Text to copy, one of several under tabs. */
export function CopyBox({ texts }: { texts: Record<string, string> }) {
  const names = Object.keys(texts);
  const [shown, setShown] = useState(names[0]!);
  const [copied, setCopied] = useState(false);
  const show = (name: string) => {
    setShown(name);
    setCopied(false);
  };
  const copy = async () => {
    await navigator.clipboard.writeText(texts[shown]!);
    setCopied(true);
  };
  return (
    <div class="copy-box">
      <div class="row">
        <div role="group" aria-label="Written as" class="row">
          {names.map((name) => (
            <button type="button" aria-pressed={name === shown} onClick={() => show(name)} key={name}>
              {name}
            </button>
          ))}
        </div>
        <button type="button" onClick={copy}>
          Copy
        </button>
        <span role="status" class="quiet">
          {copied ? "Copied" : ""}
        </span>
      </div>
      <pre tabIndex={0} aria-label={`As ${shown}`}>
        <code>{texts[shown]}</code>
      </pre>
    </div>
  );
}

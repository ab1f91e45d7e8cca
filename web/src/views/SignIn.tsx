import { useState } from "preact/hooks";

import { setApiKey } from "../api/client";

/** Asks for the key that the service wants; it is kept until the tab is closed. */
export function SignIn({ onKey }: { onKey: () => void }) {
  const [key, setKey] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    setApiKey(key.trim());
    onKey();
  };
  return (
    <form class="card narrow" onSubmit={submit}>
      <h1>Sign in</h1>
      <p>This service asks for an API key.</p>
      <label>
        API key
        <input
          type="password"
          autocomplete="off"
          required
          value={key}
          onInput={(event) => setKey(event.currentTarget.value)}
        />
      </label>
      <button class="main">Sign in</button>
    </form>
  );
}

import { useEffect, useState } from "preact/hooks";

import { api, apiKey, ServiceError, setApiKey } from "./api/client";
import { Pause } from "./parts/Pause";
import { ProblemBox } from "./parts/ProblemBox";
import { chooseTheme, useTheme } from "./parts/theme";
import { learnDefaults } from "./recipes";
import { usePlace } from "./router";
import { Compare } from "./views/Compare";
import { JobList } from "./views/JobList";
import { JobPage } from "./views/JobPage";
import { NewJob } from "./views/NewJob";
import { SignIn } from "./views/SignIn";

const VIEWS = ["jobs", "new", "compare"];

/** The frame around every view: navigation, theme, sign-in. */
export function Page() {
  const place = usePlace();
  const theme = useTheme();
  const [entry, setEntry] = useState<"asking" | "open" | "closed">("asking");
  const [failure, setFailure] = useState<unknown>(null);
  const knock = () => {
    setFailure(null);
    const known = api.openapi().then(learnDefaults);
    Promise.all([api.jobs(new URLSearchParams({ limit: "1" })), known]).then(
      () => setEntry("open"),
      (error: unknown) => {
        const refused = error instanceof ServiceError && [401, 403].includes(error.status);
        setEntry(refused ? "closed" : "open");
        if (!refused || apiKey() !== null) setFailure(error);
      },
    );
  };
  useEffect(knock, []);
  const signOut = () => {
    setApiKey(null);
    setEntry("closed");
  };
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <div class="top-inside">
        <a class="brand" href="#/jobs">
          Bitwright
        </a>
        <nav aria-label="Main">
          <NavLink to="jobs" place={place.view}>
            Jobs
          </NavLink>
          <NavLink to="new" place={place.view}>
            New job
          </NavLink>
          <NavLink to="compare" place={place.view}>
            Compare
          </NavLink>
        </nav>
        <div class="end">
          <button
            type="button"
            class="plain"
            aria-label={theme === "dark" ? "Light theme" : "Dark theme"}
            onClick={() => chooseTheme(theme === "dark" ? "light" : "dark")}
          >
            <span class="theme-word">{theme === "dark" ? "Light" : "Dark"} theme</span>
            <span class="theme-icon" aria-hidden="true">
              {theme === "dark" ? "☀" : "☾"}
            </span>
          </button>
          {apiKey() && (
            <button type="button" class="plain" onClick={signOut}>
              Sign out
            </button>
          )}
        </div>
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        <Pause />
        {failure !== null && <ProblemBox error={failure} />}
        {entry === "asking" && <p role="status">Loading</p>}
        {entry === "closed" && <SignIn onKey={knock} />}
        {entry === "open" && place.view === "jobs" && place.id === null && <JobList place={place} />}
        {entry === "open" && place.view === "jobs" && place.id !== null && <JobPage id={place.id} key={place.id} />}
        {entry === "open" && place.view === "new" && <NewJob place={place} />}
        {entry === "open" && place.view === "compare" && <Compare place={place} />}
        {entry === "open" && !VIEWS.includes(place.view) && (
          <div class="card empty">
            <h1>No such page</h1>
            <p>
              Nothing is at <code>{location.hash}</code>. <a href="#/jobs">Show all jobs</a>
            </p>
          </div>
        )}
      </main>
    </>
  );
}

function NavLink({ to, place, children }: { to: string; place: string; children: string }) {
  return (
    <a href={`#/${to}`} aria-current={place === to ? "page" : undefined}>
      {children}
    </a>
  );
}

function skip(event: Event) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

import { useEffect, useRef, useState } from "preact/hooks";

import { api } from "../api/client";
import type { Job, Preflight } from "../api/types";
import { formOf, type Inputs, rememberInputs, upload } from "../api/upload";
import { useLoad } from "../load";
import { percent } from "../numbers";
import { CopyBox } from "../parts/CopyBox";
import { ProblemBox } from "../parts/ProblemBox";
import { recipes } from "../recipes";
import { go, type Place } from "../router";
import { BudgetForm } from "./BudgetForm";
import { draftFrom, EMPTY, specOf, type Draft } from "./draft";
import { PreflightView } from "./PreflightView";

/** A job in three steps: files, what they hold, what is wanted. */
export function NewJob({ place }: { place: Place }) {
  const like = place.query.get("like");
  const earlier = useLoad<Job | null>(
    (signal) => (like ? api.job(like, signal) : Promise.resolve(null)),
    [like],
  );
  if (earlier.error !== null) return <ProblemBox error={earlier.error} />;
  if (like && earlier.value === null) return <p role="status">Loading</p>;
  return <Form earlier={earlier.value} key={like ?? ""} />;
}

interface Files {
  model: File | null;
  data: File | null;
  parts: File[];
}

function Form({ earlier }: { earlier: Job | null }) {
  const reusable = earlier?.state === "succeeded" && earlier.kind === "quantize" ? earlier : null;
  const [files, setFiles] = useState<Files>({ model: null, data: null, parts: [] });
  const [shares, setShares] = useState<Record<string, number>>({});
  const [sent, setSent] = useState<Inputs | null>(null);
  const [preflight, setPreflight] = useState<Preflight | null>(null);
  const [draft, setDraft] = useState<Draft>(() => (earlier ? draftFrom(earlier.spec) : EMPTY));
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState("");
  const sending = useRef<AbortController | null>(null);
  useEffect(() => () => sending.current?.abort(), []);

  const take = (given: FileList | null) => {
    const next = { ...files };
    for (const file of given ?? []) {
      if (/\.onnx$/i.test(file.name)) next.model = file;
      else if (/\.np[yz]$/i.test(file.name)) next.data = file;
      else next.parts = [...next.parts.filter((part) => part.name !== file.name), file];
    }
    setFiles(next);
    if (next.model && (next.model !== files.model || next.data !== files.data || next.parts !== files.parts)) {
      void sendAll(next);
    }
  };

  const sendAll = async (wanted: Files) => {
    sending.current?.abort();
    const controller = new AbortController();
    sending.current = controller;
    setError(null);
    setPreflight(null);
    setSent(null);
    const one = async (file: File) =>
      `${file.name}=${await upload(
        file,
        (share) => setShares((before) => ({ ...before, [file.name]: share })),
        controller.signal,
      )}`;
    try {
      setBusy("The files are being sent.");
      const model = await one(wanted.model!);
      const parts: string[] = [];
      for (const part of wanted.parts) parts.push(await one(part));
      const data = wanted.data ? await one(wanted.data) : "";
      setBusy("The model is being read.");
      const form = new FormData();
      form.set("model", model);
      if (data) form.set("data", data);
      for (const part of parts) form.append("files", part);
      setPreflight(await api.inspect(form, controller.signal));
      setSent({ model, data, parts });
    } catch (failure) {
      if (!controller.signal.aborted) setError(failure);
    } finally {
      if (!controller.signal.aborted) setBusy("");
    }
  };

  const start = async (event: Event) => {
    event.preventDefault();
    setBusy("The files are being checked.");
    setError(null);
    const inputs = sent?.data ? sent : null;
    try {
      const spec = specOf(draft);
      const job = inputs ? await api.quantize(formOf(inputs, spec)) : await api.again(reusable!.id, spec);
      if (inputs) rememberInputs(job.id, inputs);
      go(`/jobs/${job.id}`);
    } catch (failure) {
      setError(failure);
      setBusy("");
    }
  };

  const ready = (sent !== null && sent.data !== "") || reusable !== null;
  return (
    <form onSubmit={start} aria-labelledby="new-title">
      <h1 id="new-title">New job</h1>
      {reusable && (
        <p class="card">
          From <a href={`#/jobs/${reusable.id}`}>{reusable.model}</a>: its files and measurements are taken over. Drop files to
          use others.
        </p>
      )}
      <DropZone onFiles={take}>
        <FileList files={files} shares={shares} />
      </DropZone>
      <p role="status">{busy}</p>
      {error !== null && <ProblemBox error={error} />}
      {preflight && !files.data && (
        <p class="card">Samples are missing: drop an .npz with one array for each graph input, and optional labels.</p>
      )}
      {preflight && (
        <PreflightView preflight={preflight} rules={draft.rules} onRules={(rules) => setDraft({ ...draft, rules })} />
      )}
      <BudgetForm draft={draft} onDraft={setDraft} preflight={preflight} />
      <div class="row">
        <button class="main" disabled={!ready || busy !== ""}>
          Start
        </button>
        {!ready && <span class="quiet">A model and samples are needed first.</span>}
      </div>
      {ready && (
        <CopyBox
          texts={recipes(
            specOf(draft),
            {
              model: files.model?.name ?? reusable?.model ?? "model.onnx",
              data: files.data?.name ?? reusable?.data ?? "samples.npz",
            },
            new URL(".", location.href).href,
          )}
        />
      )}
    </form>
  );
}

function DropZone({ onFiles, children }: { onFiles: (files: FileList | null) => void; children: preact.ComponentChildren }) {
  const [over, setOver] = useState(false);
  return (
    <div
      class={`drop ${over ? "drop-over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        onFiles(event.dataTransfer?.files ?? null);
      }}
    >
      <label>
        Model (.onnx), samples (.npz or .npy), and the model's external data if it has any
        <input
          type="file"
          multiple
          onChange={(event) => {
            onFiles(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
      </label>
      <p class="quiet">Or drop them here.</p>
      {children}
    </div>
  );
}

function FileList({ files, shares }: { files: Files; shares: Record<string, number> }) {
  const all: [string, File][] = [];
  if (files.model) all.push(["model", files.model]);
  if (files.data) all.push(["samples", files.data]);
  for (const part of files.parts) all.push(["external data", part]);
  if (all.length === 0) return null;
  return (
    <ul class="files">
      {all.map(([role, file]) => (
        <li key={file.name}>
          {file.name} <span class="quiet">({role})</span>
          <progress max={1} value={shares[file.name] ?? 0} aria-label={`Sent of ${file.name}`} />
          {percent(shares[file.name] ?? 0, 0)}
        </li>
      ))}
    </ul>
  );
}

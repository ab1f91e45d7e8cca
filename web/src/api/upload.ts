import { api, send, ServiceError } from "./client";

const PIECE = 8 * 1024 * 1024;
const TRIES = 6;

/** The same file always has the same id, which begins with its name: what broke off goes on, what is there is not sent. */
export function uploadId(file: Pick<File, "name" | "size" | "lastModified">): string {
  const name = file.name.replace(/[^\w.-]+/g, "_").slice(-80).replace(/^[^A-Za-z0-9]+/, "");
  return `${name || "file"}.${file.size.toString(36)}-${file.lastModified.toString(36)}`;
}

/** The file name that an id begins with; null where another client chose the id. */
export function nameOf(id: string): string | null {
  return /^(.+)\.[0-9a-z]+-[0-9a-z]+$/.exec(id)?.[1] ?? null;
}

/** Where an upload stands: the bytes the service has, and whether it has them all. */
async function standing(path: string, signal: AbortSignal): Promise<{ offset: number; complete: boolean }> {
  try {
    const answer = await send(path, { method: "HEAD", signal });
    return {
      offset: Number(answer.headers.get("Upload-Offset") ?? 0),
      complete: answer.headers.get("Upload-Complete") === "?1",
    };
  } catch (error) {
    if (error instanceof ServiceError && error.status === 404) return { offset: 0, complete: false };
    throw error;
  }
}

/**
 * Send a file in pieces; after a lost connection it goes on behind the last piece that arrived.
 *
 * @returns the id under which the service knows it.
 */
export async function upload(file: File, onShare: (share: number) => void, signal: AbortSignal): Promise<string> {
  const id = uploadId(file);
  const path = `uploads/${id}`;
  const { uploads } = await api.uploads(signal);
  if (uploads.some((known) => known.id === id)) {
    onShare(1);
    return id;
  }
  // Only what this browser has begun is asked for: an unknown id is an error in the console.
  for (let failures = 0, begun = localStorage.getItem(path) !== null; ; begun = true) {
    localStorage.setItem(path, "begun");
    try {
      let { offset, complete } = begun ? await standing(path, signal) : { offset: 0, complete: false };
      while (!complete) {
        const end = Math.min(offset + PIECE, file.size);
        complete = end === file.size;
        await send(path, {
          method: "PUT",
          body: file.slice(offset, end),
          headers: {
            "Upload-Offset": String(offset),
            "Upload-Length": String(file.size),
            "Upload-Complete": complete ? "?1" : "?0",
          },
          signal,
        });
        offset = end;
        failures = 0;
        onShare(file.size === 0 ? 1 : offset / file.size);
      }
      onShare(1);
      localStorage.removeItem(path);
      return id;
    } catch (error) {
      const passing = error instanceof ServiceError && [0, 409, 503].includes(error.status);
      failures += 1;
      if (!passing || failures > TRIES || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 400 * 2 ** failures));
    }
  }
}

/** The uploads that a job was made of, as parts of a form: what it takes to send it again. */
export interface Inputs {
  model: string;
  data: string;
  parts: string[];
}

export function rememberInputs(job: string, inputs: Inputs): void {
  sessionStorage.setItem(`inputs ${job}`, JSON.stringify(inputs));
}

/** Known only in the tab that sent the job; the service forgets the files of a job that failed. */
export function inputsOf(job: string): Inputs | null {
  const text = sessionStorage.getItem(`inputs ${job}`);
  return text ? (JSON.parse(text) as Inputs) : null;
}

export function formOf(inputs: Inputs, spec: unknown): FormData {
  const form = new FormData();
  form.set("model", inputs.model);
  form.set("data", inputs.data);
  for (const part of inputs.parts) form.append("files", part);
  form.set("spec", JSON.stringify(spec));
  return form;
}

import type { Front, Job, JobPage, Plan, Preflight, Problem, Report, Sensitivity, Spec, UploadPage } from "./types";

const KEY = "bitwright-key";

/** An answer of the service that says what is wrong and what to do. */
export class ServiceError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.message);
  }
}

export function apiKey(): string | null {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key: string | null): void {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export function authorization(): Record<string, string> {
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Send a request; throw `ServiceError` where the answer is no success. What came too soon is sent again in its time. */
export async function send(path: string, options: RequestInit = {}): Promise<Response> {
  for (;;) {
    const answer = await sendOnce(path, options);
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    const wait = problem.code === "rate" ? Number(answer.headers.get("Retry-After")) : 0;
    if (!(wait > 0)) throw new ServiceError(answer.status, problem);
    await itsTurn(wait, options.signal);
  }
}

async function sendOnce(path: string, options: RequestInit): Promise<Response> {
  try {
    return await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ServiceError(0, {
      code: "connection",
      message: "The service does not answer.",
      remedy: "Check that it runs; this page goes on by itself once it does.",
    });
  }
}

/** Told of requests that wait because the key may make no more of them for now: `detail` is when they go on. */
export const pauses = new EventTarget();

async function itsTurn(seconds: number, signal?: AbortSignal | null): Promise<void> {
  pauses.dispatchEvent(new CustomEvent("pause", { detail: Date.now() + 1000 * seconds }));
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  signal?.throwIfAborted();
}

export async function problemOf(answer: Response): Promise<Problem> {
  const unknown = { code: "http", message: `The service answered ${answer.status}.`, remedy: "Try again later." };
  try {
    const document = (await answer.json()) as Partial<Problem>;
    return document.message ? { ...unknown, ...document } : unknown;
  } catch {
    return unknown;
  }
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await send(path, { headers: { Accept: "application/json" }, ...(signal && { signal }) });
  return (await answer.json()) as T;
}

async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const answer = await send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
  return (await answer.json()) as T;
}

/** A name that nobody else chooses; `crypto.randomUUID` is missing where a page comes by plain HTTP from another machine. */
function anyName(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16).padStart(8, "0")).join("");
}

const job = (id: string) => `jobs/${encodeURIComponent(id)}`;

export const api = {
  openapi: () => get<unknown>("openapi.json"),
  jobs: (query: URLSearchParams, signal?: AbortSignal) => get<JobPage>(`jobs?${query}`, signal),
  uploads: (signal?: AbortSignal) => get<UploadPage>("uploads?limit=200", signal),
  job: (id: string, signal?: AbortSignal) => get<Job>(job(id), signal),
  report: (id: string, signal?: AbortSignal) => get<Report>(`${job(id)}/report`, signal),
  front: (id: string, signal?: AbortSignal) => get<Front>(`${job(id)}/files/pareto.json`, signal),
  sensitivity: (id: string, signal?: AbortSignal) => get<Sensitivity>(`${job(id)}/files/sensitivity.json`, signal),
  file: <T>(id: string, name: string, signal?: AbortSignal) => get<T>(`${job(id)}/files/${name}`, signal),
  plan: (id: string, request: unknown, signal?: AbortSignal) => post<Plan>(`${job(id)}/plans`, request, signal),
  remove: (id: string) => send(job(id), { method: "DELETE" }),
  /** Cancel a job; one that has ended meanwhile keeps what it made. */
  cancel: async (id: string): Promise<void> => {
    try {
      await send(`${job(id)}?cancel_only=true`, { method: "DELETE" });
    } catch (failure) {
      if (!(failure instanceof ServiceError && failure.problem.code === "already_ended")) throw failure;
    }
  },
  inspect: async (form: FormData, signal?: AbortSignal): Promise<Preflight> => {
    const answer = await send("inspect", { method: "POST", body: form, ...(signal && { signal }) });
    return (await answer.json()) as Preflight;
  },
  quantize: async (form: FormData): Promise<Job> => {
    const answer = await send("quantize", {
      method: "POST",
      body: form,
      headers: { "Idempotency-Key": anyName() },
    });
    return (await answer.json()) as Job;
  },
  again: (from: string, spec: Spec): Promise<Job> => {
    const form = new FormData();
    form.set("from_job", from);
    form.set("spec", JSON.stringify(spec));
    return api.quantize(form);
  },
};

/** Save an artifact under a file name. A plain link would not send the key. */
export async function download(path: string, name: string, accept?: string): Promise<void> {
  const answer = await send(path, accept ? { headers: { Accept: accept } } : {});
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

import type { Inputs } from "../api/upload";
import { upload } from "../api/upload";

/** A file of a job: on this machine, or sent earlier. */
export interface Source {
  name: string;
  file: File | null;
  /** The upload it is already. */
  id: string | null;
}

export interface Sources {
  model: Source | null;
  data: Source | null;
  parts: Source[];
}

export const NO_SOURCES: Sources = { model: null, data: null, parts: [] };

/** Sort files by what they are for; a new model takes the place of the one before. */
export function withFiles(before: Sources, files: Iterable<File>): Sources {
  const next = { ...before, parts: [...before.parts] };
  for (const file of files) {
    const source = { name: file.name, file, id: null };
    if (/\.onnx$/i.test(file.name)) next.model = source;
    else if (/\.np[yz]$/i.test(file.name)) next.data = source;
    else next.parts = [...next.parts.filter((part) => part.name !== file.name), source];
  }
  return next;
}

/** Send what is not there yet, one after the other; the parts of a form that name them. */
export async function sendSources(
  sources: Sources,
  onShare: (name: string, share: number) => void,
  signal: AbortSignal,
): Promise<Inputs> {
  const one = async (source: Source) => {
    const id = source.id ?? (await upload(source.file!, (share) => onShare(source.name, share), signal));
    return `${source.name}=${id}`;
  };
  const model = await one(sources.model!);
  const parts: string[] = [];
  for (const part of sources.parts) parts.push(await one(part));
  return { model, parts, data: sources.data ? await one(sources.data) : "" };
}

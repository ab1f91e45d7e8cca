import { send, ServiceError } from "./client";

export interface ServerEvent {
  id: number;
  kind: string;
  data: Record<string, unknown>;
}

/** Split a stream of server-sent events into events; text that is no whole event yet is kept for the next call. */
export class EventParser {
  private rest = "";

  push(text: string): ServerEvent[] {
    const blocks = (this.rest + text).split(/\r?\n\r?\n/);
    this.rest = blocks.pop() ?? "";
    return blocks.map(parse).filter((event) => event !== null);
  }
}

function parse(block: string): ServerEvent | null {
  let kind = "message";
  let id = 0;
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const at = line.indexOf(":");
    if (at === 0) continue; // a comment keeps the connection open
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (field === "event") kind = value;
    else if (field === "id") id = Number(value);
    else if (field === "data") data.push(value);
  }
  return data.length ? { id, kind, data: JSON.parse(data.join("\n")) as Record<string, unknown> } : null;
}

/**
 * Follow a job from its first event to its end, through lost connections and restarts of the service.
 * EventSource cannot send a key, so the stream is read by hand.
 */
export async function follow(
  id: string,
  onEvent: (event: ServerEvent) => void,
  onConnection: (connected: boolean) => void,
  signal: AbortSignal,
): Promise<void> {
  let last = 0;
  for (let wait = 500; !signal.aborted; wait = Math.min(2 * wait, 8000)) {
    try {
      const answer = await send(`jobs/${encodeURIComponent(id)}/events`, {
        ...(last > 0 && { headers: { "Last-Event-ID": String(last) } }),
        signal,
      });
      if (answer.status === 204) return;
      if (answer.body) {
        onConnection(true);
        wait = 250;
        const parser = new EventParser();
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
          for (const event of parser.push(part.value)) {
            last = event.id;
            onEvent(event);
          }
        }
        // The stream ends with the job, or with the service: the next request tells which.
      } else onConnection(false);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ServiceError && error.status >= 400 && error.status < 500) throw error;
      onConnection(false);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

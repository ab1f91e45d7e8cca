import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { follow } from "./api/events";
import { pauses, send, ServiceError } from "./api/client";

const answers: Response[] = [];

function tooSoon(code: string): Response {
  return new Response(JSON.stringify({ code, message: "wait" }), { status: 429, headers: { "Retry-After": "7" } });
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("sessionStorage", { getItem: () => null });
  vi.stubGlobal("fetch", vi.fn(async () => answers.shift()));
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("sends what came too soon again when the service said, and tells of it", async () => {
  answers.push(tooSoon("rate"), new Response("there"));
  const told: number[] = [];
  pauses.addEventListener("pause", (event) => told.push((event as CustomEvent<number>).detail - Date.now()), { once: true });
  const answer = send("jobs");
  await vi.advanceTimersByTimeAsync(6999);
  expect(fetch).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(await (await answer).text()).toBe("there");
  expect(told).toEqual([7000]);
});

it("leaves it to people to end jobs where there are too many", async () => {
  answers.push(tooSoon("jobs"));
  await expect(send("quantize", { method: "POST" })).rejects.toThrow(ServiceError);
});

it("goes on following a job after a pause", async () => {
  answers.push(tooSoon("rate"), new Response(null, { status: 204 }));
  const lost: boolean[] = [];
  const following = follow("1", () => undefined, (connected) => lost.push(connected), new AbortController().signal);
  await vi.advanceTimersByTimeAsync(7000);
  await following;
  expect(lost).toEqual([]);
});

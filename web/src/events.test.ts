import { expect, it } from "vitest";

import { EventParser } from "./api/events";

it("puts events together however the stream is cut", () => {
  const text = ': ping\n\nevent: state\ndata: {"state": "running"}\nid: 2\n\nevent: progress\r\ndata: {"x":\r\ndata: 1}\r\nid: 3\r\n\r\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventParser();
    const found = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
    expect(found, `cut at ${cut}`).toEqual([
      { id: 2, kind: "state", data: { state: "running" } },
      { id: 3, kind: "progress", data: { x: 1 } },
    ]);
  }
});

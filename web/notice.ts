import { readFileSync } from "node:fs";

const [, ...permission] = readFileSync(new URL("node_modules/chart.js/LICENSE.md", import.meta.url), "utf8")
  .split("\n\n")
  .slice(1);
const holders = "Chart.js (c) 2014-2024 Chart.js Contributors; @kurkle/color (c) 2018-2024 Jukka Kurkela; Preact (c) 2015-present Jason Miller";

/** What the licences of the libraries ask to be kept with copies of them; all three are the MIT License. */
export const notice = `/*!\n${holders}\n\nMIT License\n\n${permission.join("\n\n").trim()}\n*/`;

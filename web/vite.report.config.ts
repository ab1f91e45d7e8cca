import { defineConfig } from "vite";

import { notice } from "./notice.ts";

// The script and the style that quant_core writes into every report, as two files of its package.
export default defineConfig({
  build: {
    outDir: "../quant_core/report/built",
    emptyOutDir: true,
    target: "es2022",
    cssCodeSplit: false,
    rollupOptions: { output: { postBanner: notice } },
    lib: { entry: "src/report/main.ts", formats: ["iife"], name: "report", fileName: () => "report.js", cssFileName: "report" },
  },
});

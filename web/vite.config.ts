import { defineConfig } from "vite";

import { notice } from "./notice.ts";

// Plain names without hashes: the files are kept in the repository, and the service sends them with an ETag.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../app/web/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        postBanner: notice,
        entryFileNames: "page.js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
});

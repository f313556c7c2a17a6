// The build: one page, hashed assets, nothing inlined, so that the page runs under `script-src 'self'` and every asset can be cached for ever.
import { defineConfig } from 'vite';

// `npm run dev` serves the console by itself; the API is then that of a control plane on its usual port.
const api = process.env['AGENTAPI_URL'] ?? 'http://127.0.0.1:3284';

export default defineConfig({
  base: './',
  build: {
    target: 'es2023',
    outDir: 'dist',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
  },
  server: { proxy: { '/api': { target: api, ws: true } } },
});

import { useEffect, useRef } from "preact/hooks";

import { useTheme } from "./theme";

interface Drawing {
  destroy(): void;
}

interface Props<T extends Drawing> {
  /** Says in words what the picture shows: it stands in for it where pictures are not seen. */
  label: string;
  height: number;
  draw: (canvas: HTMLCanvasElement) => T;
  /** The drawing is made anew when one of these changes. */
  inputs: unknown[];
  onDrawn?: (drawing: T | null) => void;
}

/** A chart: drawn again when its inputs or the theme change. */
export function Canvas<T extends Drawing>({ label, height, draw, inputs, onDrawn }: Props<T>) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const drawing = draw(canvas.current!);
    onDrawn?.(drawing);
    return () => {
      onDrawn?.(null);
      drawing.destroy();
    };
  }, [...inputs, theme]);
  return (
    <div class={`chart chart-${height}`}>
      <canvas ref={canvas} role="img" aria-label={label} />
    </div>
  );
}

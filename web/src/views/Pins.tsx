import type { Rule } from "../api/types";
import { bits } from "../numbers";
import { pinOf, WIDTHS } from "./draft";

interface Props {
  layers: readonly string[];
  /** Which layer the chart was clicked at. */
  picked: number;
  onPicked: (index: number) => void;
  rules: readonly Rule[];
  onPin: (layer: string, width: number) => void;
}

/** Pins for another plan: a layer is chosen by a click on the chart or from the list. */
export function Pins({ layers, picked, onPicked, rules, onPin }: Props) {
  const layer = layers[picked];
  if (layer === undefined) return null;
  return (
    <div class="row pins">
      <label>
        Pin a layer
        <select value={picked} onChange={(event) => onPicked(Number(event.currentTarget.value))}>
          {layers.map((name, index) => (
            <option value={index} key={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label>
        Its bits
        <select value={pinOf(rules, layer)} onChange={(event) => onPin(layer, Number(event.currentTarget.value))}>
          <option value={0}>by budget</option>
          {WIDTHS.map((width) => (
            <option value={width} key={width}>
              {bits(width)}
            </option>
          ))}
        </select>
      </label>
      <ul class="chips" aria-label="Pinned layers">
        {rules.map((rule) => (
          <li key={rule.match}>
            {rule.match}: {bits(pinOf(rules, rule.match))}
            <button type="button" class="plain" aria-label={`Free ${rule.match}`} onClick={() => onPin(rule.match, 0)}>
              ×
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

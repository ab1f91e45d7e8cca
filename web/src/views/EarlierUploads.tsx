import { api } from "../api/client";
import type { Upload } from "../api/types";
import { nameOf } from "../api/upload";
import { useLoad } from "../load";
import { bytes } from "../numbers";
import type { Source } from "./sources";

interface Props {
  onPick: (role: "model" | "data", source: Source) => void;
}

/** One's own uploads that the service still has, to be taken again. */
export function EarlierUploads({ onPick }: Props) {
  const found = useLoad((signal) => api.uploads(signal), []);
  const uploads = found.value?.uploads ?? [];
  if (uploads.length === 0) return null;
  const models = uploads.filter((upload) => !/\.np[yz]$/i.test(shownName(upload)));
  const samples = uploads.filter((upload) => !/\.onnx$/i.test(shownName(upload)));
  return (
    <fieldset class="earlier">
      <legend>Or take what was sent before</legend>
      <div class="row">
        <Picker label="Earlier model" uploads={models} onPick={(source) => onPick("model", source)} fallback="model.onnx" />
        <Picker label="Earlier samples" uploads={samples} onPick={(source) => onPick("data", source)} fallback="samples.npz" />
      </div>
    </fieldset>
  );
}

interface PickerProps {
  label: string;
  uploads: Upload[];
  fallback: string;
  onPick: (source: Source) => void;
}

function Picker({ label, uploads, fallback, onPick }: PickerProps) {
  const pick = (id: string) => {
    const upload = uploads.find((known) => known.id === id);
    if (!upload) return;
    const name = shownName(upload);
    onPick({ name: /\.(onnx|np[yz])$/i.test(name) ? name : fallback, file: null, id });
  };
  return (
    <label>
      {label}
      <select value="" disabled={uploads.length === 0} onChange={(event) => pick(event.currentTarget.value)}>
        <option value="">{uploads.length === 0 ? "none" : `choose among ${uploads.length}`}</option>
        {uploads.map((upload) => (
          <option value={upload.id} key={upload.id}>
            {short(shownName(upload))}, {bytes(upload.bytes)}
          </option>
        ))}
      </select>
    </label>
  );
}

function shownName(upload: Upload): string {
  return nameOf(upload.id) ?? upload.id;
}

/** A digest says no more by its end. */
function short(name: string): string {
  return /^[0-9a-f]{64}$/.test(name) ? `${name.slice(0, 12)}…` : name;
}

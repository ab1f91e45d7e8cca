import { render } from "preact";

import { Page } from "./Page";
import { applyTheme, watchSystem } from "./parts/theme";

applyTheme();
watchSystem();
render(<Page />, document.getElementById("page")!);

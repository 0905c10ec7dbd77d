// Package buildinfo tells which build of brfuse this is.
package buildinfo

import "runtime/debug"

// version is set by the linker: -X .../internal/buildinfo.version=v1.2.3.
var version string

// Version returns the release or the revision that the program was built from,
// and "devel" when neither is known.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

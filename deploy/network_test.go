package deploy_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// token is one of a rule of udev's: KEY, an attribute, an operator, a value.
var token = regexp.MustCompile(`^([A-Z]+)(?:\{([^}]+)\})?(==|!=|=|\+=|-=|:=)"([^"]*)"$`)

// TestUdevRules reads the rules as udev does, as far as they go.
func TestUdevRules(t *testing.T) {
	matches := []string{"ACTION", "SUBSYSTEM", "SUBSYSTEMS", "KERNEL", "DRIVERS", "ATTRS", "ATTR", "ENV"}
	labels, jumps := map[string]int{}, map[string]int{}
	set := map[string]bool{}
	for i, line := range strings.Split(read(t, "udev/75-brfuse.rules"), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		for part := range strings.SplitSeq(line, ", ") {
			m := token.FindStringSubmatch(part)
			require.NotNil(t, m, "line %d: %s", i+1, part)
			key, attribute, op, value := m[1], m[2], m[3], m[4]
			switch {
			case key == "LABEL":
				labels[value] = i
			case key == "GOTO":
				jumps[value] = i
			case op == "=":
				require.Equal(t, "ENV", key, "line %d sets nothing but properties", i+1)
				set[attribute] = true
			default:
				assert.Contains(t, matches, key, "line %d", i+1)
				// A key that looks at the device's parents matches when one of them does
				// not: with != that is nearly always.
				assert.False(t, op == "!=" && strings.HasSuffix(key, "S"), "line %d: %s", i+1, part)
				if key == "ENV" {
					assert.True(t, set[attribute], "line %d: %s is set before", i+1, attribute)
				}
			}
		}
	}
	for name, at := range jumps {
		assert.Greater(t, labels[name], at, "label %s", name)
	}
	assert.True(t, set["NM_UNMANAGED"] && set["BRFUSE"])
}

// TestUdevVerify has udev read them, where it can (since systemd 254).
func TestUdevVerify(t *testing.T) {
	udevadm, err := exec.LookPath("udevadm")
	if err != nil || exec.CommandContext(t.Context(), udevadm, "verify", "--help").Run() != nil {
		t.Skip("no udevadm verify")
	}
	out, err := exec.CommandContext(t.Context(), udevadm, "verify", "--resolve-names=never", "udev/75-brfuse.rules").CombinedOutput()
	assert.NoError(t, err, "%s", out)
}

func TestNetworkManagers(t *testing.T) {
	assert.Equal(t, []setting{{"Match", "Property", "BRFUSE=1"}, {"Link", "Unmanaged", "yes"}}, settings(t, "networkd/10-brfuse.network"))
	assert.Equal(t, []setting{{"Match", "Property", "BRFUSE=1"}, {"Link", "MACAddressPolicy", "none"}}, settings(t, "networkd/10-brfuse.link"))
	assert.Equal(t, []setting{{"Match", "Name", "brf* bf-* bfnew-* bfx-* bfv-*"}, {"Link", "Unmanaged", "yes"}}, settings(t, "networkd/10-brfused.network"))
	assert.Equal(t, []setting{
		{"device-brfuse", "match-device", "interface-name:brf*;interface-name:bf-*;interface-name:bfnew-*;interface-name:bfx-*;interface-name:bfv-*"}, {"device-brfuse", "managed", "0"},
	}, settings(t, "networkmanager/90-brfuse.conf"))
}

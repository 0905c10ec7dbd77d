package deploy_test

import (
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/tlsfiles"
)

// TestDocumentedCertificates runs the document's recipe, and has the daemon's own
// checks judge what comes of it.
func TestDocumentedCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl")
	}
	_, recipe, ok := strings.Cut(section(t, "../docs/operations.md", "## Certificates"), "\n    openssl ")
	require.True(t, ok)
	recipe, _, _ = strings.Cut("    openssl "+recipe, "\n\n")
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", recipe)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	files := func(name string) tlsfiles.Files {
		return tlsfiles.Files{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key"), CA: filepath.Join(dir, "ca.pem")}
	}
	for name, host := range map[string]string{"hv-a": "192.0.2.1", "hv-b": "192.0.2.2"} {
		src, err := tlsfiles.Open(files(name), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		for _, n := range []string{name, host} { // daemons look for either, users for the host that they call
			require.NoError(t, src.CheckNames(n))
		}
		require.ErrorContains(t, src.CheckNames("hv-c", "192.0.2.9"), "is for "+name)
	}
	_, err = tlsfiles.Open(files("ada"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}

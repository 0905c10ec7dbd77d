package deploy_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
)

// documents are what people read.
func documents(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return append(names, "../README.md", "README.md")
}

// commands returns the command lines of brfuse's programs in a document: those
// between backticks, and those in blocks, with or without a prompt.
func commands(text string) (lines [][]string) {
	spans := regexp.MustCompile("`[^`\n]+`").FindAllString(text, -1)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			spans = append(spans, strings.Split(line, " && ")...)
		}
	}
	for _, span := range spans {
		words := strings.Fields(strings.Trim(span, "`#$ \n"))
		if len(words) > 1 && (words[0] == "brfuse" || words[0] == "brfused" || words[0] == "brfuse-agent") {
			lines = append(lines, words)
		}
	}
	return lines
}

// subcommand returns the words of a command line that choose a command of brfuse.
func subcommand(words []string) []string {
	isGroup := slices.Contains([]string{"vm", "network", "pool"}, words[0])
	if isGroup && len(words) > 1 {
		return words[:2]
	}
	return words[:1]
}

// TestDocumentedCommands: every command and flag that a document names exists.
func TestDocumentedCommands(t *testing.T) {
	agent, daemon := flagsOf(t, "brfuse-agent"), flagsOf(t, "brfused")
	cli := filepath.Join(t.TempDir(), "brfuse")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", cli, "../cmd/brfuse").CombinedOutput()
	require.NoError(t, err, "%s", out)
	help := map[string]string{}
	for _, document := range documents(t) {
		for _, words := range commands(read(t, document)) {
			line := strings.Join(words, " ")
			flags := flagsIn(strings.FieldsFunc(strings.Join(words[1:], " "), func(r rune) bool { return strings.ContainsRune(" []|", r) })...)
			known := agent
			switch words[0] {
			case "brfused":
				known = daemon
			case "brfuse":
				known = nil
				sub := subcommand(words[1:])
				key := strings.Join(sub, " ")
				if help[key] == "" {
					out, err := exec.CommandContext(t.Context(), cli, append(sub, "--help")...).CombinedOutput()
					require.NoError(t, err, "%s: %s: %s", document, line, out)
					help[key] = string(out)
				}
				assert.Contains(t, help[key], "brfuse "+key, "%s: %s: no such command", document, line)
				for _, name := range flags {
					assert.Regexp(t, `(?m)^\s+(-\w, )?--`+name+`\b|^\s+-`+name+`, `, help[key], "%s: %s", document, line)
				}
			}
			for _, name := range flags {
				assert.True(t, known == nil || known[name], "%s: %s: no flag %q", document, line, name)
			}
		}
	}
	assert.Greater(t, len(help), 5)
}

// section returns what a document has from a heading, or another line, to the next heading.
func section(t *testing.T, document, begin string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, document), "\n"+begin)
	require.True(t, ok, "%s: %s", document, begin)
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// firstCells returns what stands between backticks in the first cells of the
// table that follows in a text.
func firstCells(text string) (cells []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			if len(cells) > 0 {
				return cells
			}
			continue
		}
		cell := strings.SplitN(line, "|", 3)[1]
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			cells = append(cells, m[1])
		}
	}
	return cells
}

// keys returns the JSON names of a struct in a Go file.
func keys(t *testing.T, file, name string) (list []string) {
	t.Helper()
	f, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			tag, err := strconv.Unquote(field.Tag.Value)
			require.NoError(t, err)
			key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			list = append(list, key)
		}
		return false
	})
	require.NotEmpty(t, list)
	return list
}

// TestDocumentedKeys: the document has the plugin's keys, all of them.
func TestDocumentedKeys(t *testing.T) {
	const source = "../guestside/cni/config.go"
	text := section(t, "../docs/kubernetes.md", "## Configuration")
	want := without(keys(t, source, "config"), "cniVersion", "name", "args", "runtimeConfig", "prevResult", "cni.dev/valid-attachments")
	assert.ElementsMatch(t, want, firstCells(text))
	_, text, _ = strings.Cut(text, "| capability")
	want = without(keys(t, source, "runtimeConfig"), "infinibandGUID", "deviceID") // refused
	assert.ElementsMatch(t, want, firstCells(text))
}

func without(list []string, others ...string) []string {
	return slices.DeleteFunc(list, func(key string) bool { return slices.Contains(others, key) })
}

// TestDocumentedConfigurations: what documents show of CNI's is JSON.
func TestDocumentedConfigurations(t *testing.T) {
	_, text, ok := strings.Cut(read(t, "../docs/podman.md"), "\n    {")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n\n")
	assert.True(t, json.Valid([]byte("{"+text)), text)
}

// TestDocumentedCodes: the document has all codes of brfuse's own.
func TestDocumentedCodes(t *testing.T) {
	text := section(t, "../docs/kubernetes.md", "## Errors")
	for _, code := range []uint{
		cniapi.CodeAddressTaken, cniapi.CodePortTaken, cniapi.CodeForbidden, cniapi.CodeConflict, cniapi.CodeDiffers, cniapi.CodeUnsupported, cniapi.CodeVersion,
	} {
		assert.Contains(t, text, "\n| "+strconv.Itoa(int(code))+" | ")
	}
}

// texts returns all strings of the Go files in some folders.
func texts(t *testing.T, folders ...string) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if _, ok := n.(*ast.ImportSpec); ok {
					return false
				}
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == gotoken.STRING {
					s, err := strconv.Unquote(lit.Value)
					require.NoError(t, err)
					all.WriteString(s + "\n")
				}
				return true
			})
			return nil
		})
		require.NoError(t, err)
	}
	return all.String()
}

// TestDocumentedMessages: the messages in the documents' tables are still those
// of the programs. "..." stands for what differs; those of engines are said to be.
func TestDocumentedMessages(t *testing.T) {
	all := texts(t, "../guestside", "../hostside", "../internal", "../orchestrator", "../vnic")
	row := regexp.MustCompile(`(?m)^\| (?:[\d, ]+ \| )?(.+?) \| (.+) \|$`)
	for document, begin := range map[string]string{
		"../docs/docker.md": "## Messages", "../docs/kubernetes.md": "## Errors", "../docs/podman.md": "## When something dies, and messages",
	} {
		checked := 0
		for _, m := range row.FindAllStringSubmatch(section(t, document, begin), -1) {
			if regexp.MustCompile(`^(Docker|podman)'s[:,]`).MatchString(m[2]) {
				continue
			}
			for _, message := range firstCells("|" + m[1] + "|\n") {
				for part := range strings.SplitSeq(message, "...") {
					part = strings.Trim(part, `" `)
					if !strings.Contains(all, part) { // assert.Contains would print all
						assert.Fail(t, "no program says so", "%s: %s: %q", document, message, part)
					}
					checked++
				}
			}
		}
		assert.Greater(t, checked, 4, document)
	}
}

// TestDocumentedOptions: the document has the Docker driver's options.
func TestDocumentedOptions(t *testing.T) {
	m := regexp.MustCompile(`containerOptions = "([^"]+)and `).FindStringSubmatch(read(t, "../guestside/docker/options.go"))
	require.NotNil(t, m)
	documented := strings.Join(firstCells(section(t, "../docs/docker.md", "| option of the network")), " ")
	for name := range strings.FieldsSeq(strings.ReplaceAll(m[1], ",", " ")) {
		assert.Contains(t, documented, name+"=")
	}
}

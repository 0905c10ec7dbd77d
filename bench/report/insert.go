package main

import (
	"fmt"
	"os"
	"strings"
)

// The lines between which the published figures and ours are put.
const (
	begin = "<!-- published: go run ./bench/report -into writes what is between these lines -->"
	end   = "<!-- /published -->"
)

// insert puts a table between those lines of a file.
func insert(path, table string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("put the published figures into a text: %w", err)
	}
	text := string(old)
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed || strings.Count(text, begin) != 1 || strings.Count(text, end) != 1 {
		return fmt.Errorf("put the published figures into %s: it must have the lines %q and %q once, in this order", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(before+begin+"\n"+table+end+after), 0o644); err != nil {
		return fmt.Errorf("put the published figures into a text: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"github.com/brfuse/brfuse/internal/nettopo"
)

// topology builds a nested topology in this namespace, or removes it.
func topology(ctx context.Context, args []string, _ io.Writer) error {
	v, rest, err := verb("topology", args, "up", "down")
	if err != nil {
		return err
	}
	f := flag.NewFlagSet("topology "+v, flag.ContinueOnError)
	raw := f.String("spec", "", "a nettopo.Spec as `JSON`")
	if err := parse(f, rest, "spec"); err != nil {
		return err
	}
	var s nettopo.Spec
	if err := decode(*raw, &s); err != nil {
		return err
	}
	if v == "up" {
		return nettopo.Up(ctx, s)
	}
	return nettopo.Down(ctx, s)
}

// decode decodes what the command line says.
func decode(raw string, v any) error {
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}

package qmpvm

import (
	"context"
	"fmt"
)

// Network implements [backend.NetworkTeller].
func (v *VM) Network(ctx context.Context) (string, error) {
	var text string
	q := &query{cmd: "human-monitor-command", args: args{"command-line": "info network"}, into: &text}
	if err := v.conn.ask(ctx, q); err != nil {
		return "", fmt.Errorf("ask for the nics of vm %s: %w", v.name, err)
	}
	return text, nil
}

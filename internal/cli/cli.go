// Package cli is the command line of brfuse: a client of brfused's API.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/vnic"
)

// DefaultSocket is where brfused listens unless told otherwise.
const DefaultSocket = "/run/brfuse/brfused.sock"

// SocketEnv names the environment variable that replaces [DefaultSocket].
const SocketEnv = "BRFUSE_SOCKET"

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the operation did not succeed
	exitUsage = 2 // the command line is wrong
)

// Main is the program with its surroundings as fields. All are required.
type Main struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// Run runs the command line and returns the exit code. Errors are printed on
// Stderr, as JSON when -o json was given.
func (m *Main) Run(ctx context.Context) int {
	app := &app{main: m}
	root := app.root() //nolint:contextcheck // the commands get it when they run
	root.SetArgs(m.Args)
	root.SetIn(m.Stdin)
	root.SetOut(m.Stdout)
	root.SetErr(m.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	app.printError(err)
	if isUsage(err) {
		return exitUsage
	}
	return exitError
}

// app holds what the commands share.
type app struct {
	main    *Main
	socket  string
	host    string // HOST:PORT; empty: the socket
	tls     tlsfiles.Files
	output  string
	timeout time.Duration
}

// usageError is an error of the command line itself.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func isUsage(err error) bool {
	_, ok := errors.AsType[*usageError](err)
	return ok
}

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "brfuse",
		Short: "Give pods in virtual machines their own virtio NICs",
		Long: `brfuse gives a pod in a virtual machine a virtio NIC of its own: the hypervisor
hotplugs it, the guest's agent moves it into the pod. It is a client of brfused,
the daemon on the hypervisor.`,
		Version:           buildinfo.Version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.checkGlobals(c) },
	}
	flags := root.PersistentFlags()
	a.connectFlags(root)
	flags.StringVarP(&a.output, "output", "o", "table", "output: table or json")
	flags.DurationVar(&a.timeout, "timeout", 2*time.Minute, "give up after this time")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, c.CommandPath())
	})
	root.AddCommand(a.attach(), a.detach(), a.list(), a.get(), a.vm(), a.network(), a.publish(), a.services(), a.unpublish(), a.hosts(), a.pool(), a.gc(), a.topology(), a.doctor(), a.bench())
	checkArgs(root)
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return root
}

// checkArgs makes a wrong number of arguments, and an unknown subcommand, a
// usage error.
func checkArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usagef("%w; see `%s --help`", err, c.CommandPath())
		}
		return nil
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(c *cobra.Command, _ []string) error {
			return usagef("%s needs a subcommand; see `%s --help`", c.CommandPath(), c.CommandPath())
		}
	}
	for _, sub := range c.Commands() {
		checkArgs(sub)
	}
}

func (a *app) checkGlobals(c *cobra.Command) error {
	if a.output != "table" && a.output != "json" {
		return usagef("output %q is neither table nor json", a.output)
	}
	if a.timeout <= 0 {
		return usagef("timeout %s is not positive", a.timeout)
	}
	return a.checkConnect(c)
}

// printError prints what went wrong, and in JSON with its code.
func (a *app) printError(err error) {
	if a.output != "json" && !wantsJSON(a.main.Args) {
		fmt.Fprintf(a.main.Stderr, "brfuse: %v\n", err)
		return
	}
	code := string(vnic.CodeOf(err))
	switch {
	case isUsage(err):
		code = "usage"
	case code == "" && errors.Is(err, context.DeadlineExceeded):
		code = "timeout"
	case code == "" && errors.Is(err, context.Canceled):
		code = "interrupted"
	case code == "" && errors.Is(err, os.ErrPermission):
		code = "permission"
	case code == "":
		code = "unknown"
	}
	enc := json.NewEncoder(a.main.Stderr)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{"error": map[string]string{"code": code, "message": err.Error()}}) // nothing left to tell it to
}

// wantsJSON looks for -o json on a command line that could not be parsed.
func wantsJSON(args []string) bool {
	line := " " + strings.Join(args, " ") + " "
	for _, form := range []string{" -o json ", " -ojson ", " -o=json ", " --output json ", " --output=json "} {
		if strings.Contains(line, form) {
			return true
		}
	}
	return false
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

// server answers the harness's requests, each in a goroutine of its own.
type server struct {
	port port

	writeMu sync.Mutex // held while a line is written

	mu       sync.Mutex
	session  string
	inFlight map[uint64]context.CancelFunc // of the current session
	started  map[int]*background           // by pid; they survive their session
}

// serveLab starts what the image wants started and serves until the port fails.
func serveLab() error {
	p, err := openPort()
	if err != nil {
		return err
	}
	defer p.Close()
	s := &server{port: p, inFlight: map[uint64]context.CancelFunc{}, started: map[int]*background{}}
	if err := s.autostart("/etc/autostart"); err != nil {
		return err
	}
	fmt.Println(labproto.ReadyLine)
	r := bufio.NewReader(p)
	for {
		req, err := labproto.Read[labproto.Request](r)
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		s.dispatch(req)
	}
}

// autostart starts each command of the file, a JSON list of lists of words.
func (s *server) autostart(file string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var commands [][]string
	if err := json.Unmarshal(b, &commands); err != nil {
		return fmt.Errorf("decode %s: %w", file, err)
	}
	for _, argv := range commands {
		if _, err := s.start(labproto.Request{Argv: argv}); err != nil {
			return fmt.Errorf("start %q: %w", argv, err)
		}
	}
	return nil
}

func (s *server) dispatch(req labproto.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Op == labproto.OpHello {
		s.endSessionLocked()
		s.session = req.Session
		go s.reply(labproto.Reply{Session: req.Session, ID: req.ID})
		return
	}
	if req.Session != s.session {
		return // of a host that is gone
	}
	if req.Op == labproto.OpCancel {
		if cancel, ok := s.inFlight[req.Target]; ok {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.inFlight[req.ID] = cancel
	go func() {
		rep := s.answer(ctx, req)
		rep.Session, rep.ID = req.Session, req.ID
		s.forget(req)
		cancel()
		s.reply(rep)
	}()
}

func (s *server) endSessionLocked() {
	for _, cancel := range s.inFlight {
		cancel()
	}
	clear(s.inFlight)
}

func (s *server) forget(req labproto.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == req.Session {
		delete(s.inFlight, req.ID)
	}
}

// reply writes one line. A reply that can't be written is lost, as it would be
// on its way; the host's deadline tells.
func (s *server) reply(rep labproto.Reply) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := labproto.Write(s.port, rep); err != nil {
		fmt.Fprintln(os.Stderr, "labserve: reply:", err)
	}
}

func (s *server) answer(ctx context.Context, req labproto.Request) labproto.Reply {
	var rep labproto.Reply
	var err error
	switch req.Op {
	case labproto.OpRun:
		rep, err = runCommand(ctx, req)
	case labproto.OpStart:
		rep.PID, err = s.start(req)
	case labproto.OpWait:
		rep.Code, err = s.wait(ctx, req.PID)
	case labproto.OpSignal:
		err = unix.Kill(req.PID, unix.Signal(req.Signal))
	case labproto.OpPut:
		err = putFile(req)
	case labproto.OpGet:
		rep.Data, rep.EOF, err = getFile(req)
	case labproto.OpPoweroff:
		unix.Sync()
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		rep.Error = err.Error()
	}
	return rep
}

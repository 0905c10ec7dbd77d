package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	for _, tc := range []struct {
		name, in, out, err string
	}{
		{
			name: "passed, slow, skipped",
			in: `{"Action":"start","Package":"p"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Test":"TestB/sub","Elapsed":2}
{"Action":"pass","Package":"p","Test":"TestB","Elapsed":2}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    a_test.go:7: not root\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC","Elapsed":0}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t2.1s\n"}
{"Action":"pass","Package":"p","Elapsed":2.1}
`,
			out: "--- PASS: TestB (2.00 s)\n--- SKIP: TestC (0.00 s)\n        a_test.go:7: not root\nok  \tp\t2.1s\n\n3 passed, 0 failed, 1 skipped\n",
		},
		{
			name: "failed",
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:9: bad\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.2s\n"}
{"Action":"fail","Package":"p","Elapsed":0.2}
`,
			out: "--- FAIL: TestA (0.10 s)\n        a_test.go:9: bad\nFAIL\tp\t0.2s\n\n0 passed, 1 failed, 0 skipped\n",
			err: "tests failed",
		},
		{
			name: "does not build",
			in: `{"ImportPath":"p","Action":"build-output","Output":"p/a.go:1:1: nonsense\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
`,
			out: "p/a.go:1:1: nonsense\nFAIL\tp [build failed]\n\n0 passed, 1 failed, 0 skipped\n",
			err: "tests failed",
		},
		{
			name: "out of time",
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"waiting\n"}
{"Action":"output","Package":"p","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"p","Elapsed":9}
`,
			out: "--- unfinished: TestA\n    waiting\npanic: test timed out\n\n0 passed, 1 failed, 0 skipped\n",
			err: "tests failed",
		},
		{
			name: "nothing",
			in:   "go: cannot find main module\n",
			out:  "go: cannot find main module\n\n0 passed, 0 failed, 0 skipped\n",
			err:  "no test was run",
		},
		{
			name: "no test files",
			in: `{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p","Elapsed":0}
{"Action":"pass","Package":"q","Test":"TestA","Elapsed":0.1}
`,
			out: "?   \tp\t[no test files]\n\n1 passed, 0 failed, 0 skipped\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(tc.in), &out)
			if tc.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, tc.err)
			}
			assert.Equal(t, tc.out, out.String())
		})
	}
}

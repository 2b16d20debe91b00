#!/usr/bin/env perl

# What a daemon does with its command line and environment, before it serves anything.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $tool = ($ENV{EG_TESTS} // eg_root() . '/build/tests') . '/common/daemon_tool';

# Runs the tool to its end; (exit code, stdout, stderr).
sub run
{
	my ($args, %env) = @_;
	my ($out, $err) = map { test_path("run.$_") } qw(out err);
	my $pid = fork // die;
	if (!$pid) {
		open STDOUT, '>', $out or die;
		open STDERR, '>', $err or die;
		%ENV = ((map { defined $ENV{$_} ? ($_ => $ENV{$_}) : () } qw(PATH ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS)), %env);
		exec { $tool } $tool, @$args or die;
	}
	waitpid $pid, 0;
	return ($? >> 8, slurp($out), slurp($err), $? & 127);
}

subtest 'reference' => sub {
	my ($code, $out, $err) = run(['--version']);
	is $code, 0, '--version';
	like $out, qr/^tool \S+\n\z/, 'name and version';
	($code, $out, $err) = run([ '--nonsense', '--help' ], TOOL_NUMBER => 'x');
	is $code, 0, '--help works whatever else is wrong';
	is $err, '', 'nothing on stderr';
	like $out, qr/^tool: does nothing, in the way of a daemon\n\nusage: tool /, 'what it is';
	like $out, qr/^Tool\n.*^  --listen ADDRESS .*^All daemons\n.*^  --lameduck TIME .*LAMEDUCK, default 1s\n.*^Also\n/ms, 'sections';
	like $out, qr/^  --rpc-socket PATH .*\n *.*\n? *TOOL_RPC_SOCKET$/m, 'the variable of the RPC socket has the prefix';
	unlike $out, qr/\e/, 'no colour in a pipe';
	is +(grep { length > 100 } split /\n/, $out), 0, 'at most 100 columns';
	is((run(['-h']))[1], $out, '-h is --help');
	($code, $out) = run(['--print-options']);
	is $code, 0, '--print-options';
	like $out, qr/^## tool\n.*^### Tool\n.*^\| `--number N` \| `TOOL_NUMBER` \| `-1` \|/ms, 'Markdown';
	($code, $out) = run(['--print-metrics']);
	is $code, 0, '--print-metrics';
	like $out, qr/^\| `tool_requests_total` \| counter \| `path` \| Requests\. \|$/m, 'own families';
	like $out, qr/^\| `process_cpu_seconds_total` \|/m, 'those of every daemon';
};

subtest 'bad options' => sub {
	for (
		[ 64, 'tool: unknown option --lameduk; did you mean --lameduck?', ['--lameduk=1'] ],
		[ 64, 'tool: --number: "x" is not a whole number', ['--number=x'] ],
		[ 64, 'tool: unexpected argument "serve"; options begin with --', ['serve'] ],
		[ 78, 'tool: environment variable LAMEDUCK: "soon" is not a time from 0 to 1h, such as 250ms, 5s or 2m', [],
			LAMEDUCK => 'soon' ],
		[ 78, 'tool: TOOL_MODE must not be bad', [], TOOL_MODE => 'bad' ],
		[ 78, 'tool: unknown environment variable TOOL_NUMBERS', ['--strict'], TOOL_NUMBERS => 1 ],
		[ 78, 'tool: environment variable TOOL_SECRET_FILE: cannot read "/nowhere": No such file or directory', [],
			TOOL_SECRET_FILE => '/nowhere' ],
	) {
		my ($code, $line, $args, %env) = @$_;
		for my $check ([], ['--check-config']) {
			my ($got, $out, $err) = run([ @$args, @$check ], %env);
			is $got, $code, "exit $code @$check";
			is $err, "$line\n", 'one line';
			is $out, '', 'nothing else';
		}
	}
};

subtest 'check and print' => sub {
	my ($code, $out, $err) = run(['--check-config'], TOOL_SECRET => 'abc');
	is $code, 0, 'good';
	is $err, '', 'quiet';
	($code, $out, $err) = run(['--check-config'], TOOL_NUMBERS => 1);
	is $code, 0, 'an unknown variable is no error';
	like $err, qr/"severitytext":"WARN".*"body":"unknown environment variable TOOL_NUMBERS"/, 'but a warning';

	my $secret = spew(test_path('secret'), "hush-hush\n");
	($code, $out, $err) = run([ '--print-config', '--mode', q{it's}, '--lameduck=90' ], TOOL_SECRET_FILE => $secret,
		LOG_LEVEL => 'WARNING', TERMINATION_GRACE_PERIOD => '250ms');
	is $code, 0, 'printed';
	unlike "$out$err", qr/hush/, 'no secret';
	like $out, qr/^# file\n# TOOL_SECRET=\(set\)$/m, 'that it is set, and from where';
	like $out, qr/^# flag\nTOOL_MODE='it'\\''s'$/m, 'quoted for a shell';
	like $out, qr/^# flag\nLAMEDUCK=90s$/m, 'a flag';
	like $out, qr/^# environment\nLOG_LEVEL=warn$/m, 'a variable';
	like $out, qr/^# default\nRUN_DIR=var\/run$/m, 'a default';
	# The output is an environment file.
	my $file = spew(test_path('env'), $out);
	my $again = `env -i sh -c 'set -a; . $file; exec "$tool" --print-config'`;
	s/^# (?:flag|file|environment|default)\n//mg for $out, $again;
	s/\(not set\)/(set)/ for $again;
	is $again, $out, 'and means the same when it is read';
};

subtest 'start without luck' => sub {
	my $taken = listen_tcp();
	my $address = '127.0.0.1:' . $taken->sockport;
	my ($code, $out, $err) = run(["--listen=$address"], RUN_DIR => test_dir());
	is $code, 69, 'port taken';
	like $err, qr/"severitytext":"FATAL".*"body":"\Q$address\E is in use by another process"\}\n\z/, 'said clearly';
	($code, $out, $err) = run([], RUN_DIR => spew(test_path('file'), ''));
	is $code, 73, 'run directory is a file';
	like $err, qr/"body":"run directory \S+: Not a directory"/, 'said clearly';
	my $long = test_path('x' x 100);
	($code, $out, $err) = run([], RUN_DIR => $long);
	is $code, 69, 'path too long for a socket';
	like $err, qr/is too long for a socket: \d+ bytes, at most 107"/, 'said clearly';
	ok !-e test_path('tool.sock'), 'no socket file stays behind';
};

done_testing;

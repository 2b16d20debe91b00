package EG::Test;

# The harness of all script tests: a directory of its own, listening sockets that nobody can steal,
# daemons that are started, watched and stopped.
#
#   use FindBin; use lib "$FindBin::Bin/../lib";
#   use EG::Test;                       # Test::More, strict and warnings come with it
#
#   my $openai = fake_openai();
#   my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
#           env => { OPENAI_BASE_URL => $openai->url . '/v1' }, args => [ '--log-level=debug' ]);
#   my $r = http('GET', $d->url . '/healthz');
#   done_testing;
#
# Sockets: a free port is not looked for and hoped to stay free: the harness binds port 0 itself and
# hands the socket down by LISTEN_FDS (http => 1, rpc => NAME below the test's directory), and keeps
# it over a restart, as the supervisor does. rpc => undef or absent: the daemon makes its own below
# RUN_DIR, which is the test's directory (a second one of the same name gets NAME-1.sock).
#
# At the end (also after die, or a signal) every daemon gets SIGTERM, and SIGKILL after a deadline. The
# test fails when a daemon left in a way the test did not ask for, or its log has a sanitizer report, a
# fatal line or a broken invariant; allow => qr/.../ lets log lines pass that a test provokes.

use strict;
use warnings;
use Cwd ();
use Exporter ();
use File::Basename qw(dirname);
use File::Temp ();
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use POSIX ();
use Socket qw(SOCK_STREAM SOMAXCONN);
use Test::More;
use Time::HiRes ();

use EG::Build qw(instrumented $TIMEOUT);
use EG::HTTP;
use EG::MsgPack;
use EG::Process;
use EG::RPC;

our @ISA = ('Exporter');
our @EXPORT = (
	qw(test_dir test_path daemon process fake_openai fake_ollama fake_gatewayd fake_pod listen_tcp listen_unix wait_for slurp spew
		json_decode json_encode eg_bin eg_root instrumented rss_kb run_tool),
	@Test::More::EXPORT, @EG::HTTP::EXPORT, @EG::MsgPack::EXPORT,
);

my $ROOT = Cwd::abs_path(dirname(__FILE__) . '/../../..');
my $BIN = $ENV{EG_BIN} // "$ROOT/build/bin";
my $OWNER = $$;
my ($dir, %started);

sub import
{
	strict->import;
	warnings->import;
	return EG::Test->export_to_level(1, @_);
}

sub eg_root { return $ROOT }
sub eg_bin { return defined $_[0] ? "$BIN/$_[0]" : $BIN }

sub test_dir { return $dir //= File::Temp->newdir('eg-test-XXXXXX', TMPDIR => 1) }
sub test_path { return test_dir() . '/' . shift }

sub slurp
{
	my ($path) = @_;
	open my $f, '<:raw', $path or die "$path: $!";
	local $/;
	my $data = <$f>;
	return $data // '';
}

sub spew
{
	my ($path, $data) = @_;
	open my $f, '>:raw', $path or die "$path: $!";
	print $f $data;
	close $f or die "$path: $!";
	return $path;
}

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
sub json_decode { return $json->decode($_[0]) }
sub json_encode { return $json->encode($_[0]) }

# Until the block returns something true, which is returned; dies with $what after $timeout seconds.
sub wait_for(&$;$) { return until_true(@_) }

sub until_true
{
	my ($condition, $what, $timeout) = @_;
	my $deadline = Time::HiRes::time() + ($timeout // $TIMEOUT);
	my $pause = 0.001;
	while (1) {
		my $value = $condition->();
		return $value if $value;
		die "timeout waiting for $what\n" if Time::HiRes::time() > $deadline;
		select undef, undef, undef, $pause;
		$pause *= 1.5 if $pause < 0.05;
	}
}

# Resident memory of a process.
# Exit code, standard output and standard error of a program that ends by itself, $env added to its environment.
sub run_tool
{
	my ($env, $name, @args) = @_;
	my ($out, $err) = (test_path("$name.out"), test_path("$name.err"));
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		@ENV{ keys %$env } = values %$env;
		open STDOUT, '>', $out;
		open STDERR, '>', $err;
		exec eg_bin($name), @args or POSIX::_exit(127);
	}
	waitpid $pid, 0;
	return ($? >> 8, slurp($out), slurp($err));
}

sub rss_kb
{
	my ($pid) = @_;
	return slurp("/proc/$pid/status") =~ /^VmRSS:\s+(\d+) kB/m ? $1 : die "no VmRSS of $pid";
}

sub listen_tcp
{
	return IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => SOMAXCONN, ReuseAddr => 1)
		// die "listen: $!";
}

sub listen_unix
{
	my ($path) = @_;
	unlink $path;
	return IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => SOMAXCONN) // die "listen on $path: $!";
}

# A daemon of ours by name. Options: args => [], env => {}, http => 1, rpc => 'name.sock', ready => what
# to wait for ('http': /readyz, 'rpc': a ping, qr/log line/, sub {}, or 0: nothing; default: what it
# has), allow => qr/log lines that are no failure/, stop_ms.
sub daemon
{
	my ($name, %o) = @_;
	my $binary = eg_bin($name);
	-x $binary or plan(skip_all => "$binary is not built");
	# A second one of that name in the same directory needs a socket of its own.
	my $n = $started{$name}++;
	$o{rpc} //= "$name-$n.sock" if $n;
	return EG::Process->new($name, [$binary], %o);
}

# Any other program, watched the same way.
sub process { my ($name, $command, %o) = @_; return EG::Process->new($name, $command, %o) }

sub fake_openai
{
	my (%o) = @_;
	return bless EG::Process->new('fake_openai', [ $^X, "$ROOT/tests/lib/fake_openai" ],
		http => 1, ready => 0, exit => qr/^(?:0|15)$/, %o), 'EG::FakeOpenAI';
}

# Has the same handles; base() is of no use.
sub fake_ollama
{
	my (%o) = @_;
	return bless EG::Process->new('fake_ollama', [ $^X, "$ROOT/tests/lib/fake_ollama" ],
		http => 1, ready => 0, exit => qr/^(?:0|15)$/, %o), 'EG::FakeOpenAI';
}

# A scripted gatewayd behind run_dir/gatewayd.N.sock.
sub fake_gatewayd
{
	my ($n, %o) = @_;
	return bless EG::Process->new("gatewayd.$n", [ $^X, "$ROOT/tests/lib/fake_gatewayd" ],
		rpc => "gatewayd.$n.sock", ready => 'rpc', exit => qr/^(?:0|15)$/, %o,
		env => { FAKE_NAME => "gatewayd.$n", %{ $o{env} // {} } }), 'EG::FakeGatewayd';
}

# A gatewayd of another pod, for purges over HTTP.
sub fake_pod
{
	my (%o) = @_;
	return bless EG::Process->new('fake_pod', [ $^X, "$ROOT/tests/lib/fake_pod" ],
		http => 1, ready => 0, exit => qr/^(?:0|15)$/, %o), 'EG::FakePod';
}

sub _finish
{
	return if $$ != $OWNER;
	my $status = $?;
	eval { EG::Process::stop_all(); 1 } or do { diag $@; $status ||= 1 };
	$status ||= 1 if !Test::More->builder->is_passing;
	$? = $status;
	return;
}

END { _finish() }
$SIG{$_} = sub { diag "SIG$_[0]"; exit 1 } for qw(INT TERM HUP);
$SIG{PIPE} = 'IGNORE';

1;

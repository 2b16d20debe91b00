#!/usr/bin/env perl

# podctl tail, logs, top, completion: what people look at.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use POSIX qw(WNOHANG);
use Pod;

# A podctl that goes on until it is killed.
sub background
{
	my ($pod, @args) = @_;
	local $ENV{RUN_DIR} = $pod->dir;
	pipe my $r, my $w or die;
	my $pid = fork // die;
	if (!$pid) {
		open STDOUT, '>&', $w or die;
		close $_ for $r, $w;
		exec eg_bin('podctl'), @args or die;
	}
	close $w;
	return ($pid, $r);
}

sub until_line
{
	my ($r, $re) = @_;
	local $SIG{ALRM} = sub { die "no line like $re" };
	alarm 30;
	my $line;
	do { $line = <$r> } while defined $line && $line !~ $re;
	alarm 0;
	return $line;
}

# Prints what comes in through a FIFO, so that the test decides when.
my $pod = Pod->new(sub {
	my ($pod) = @_;
	my $say = $pod->script(say => <<'CODE');
STDERR->autoflush(1);
my $name = $ENV{SUPERVISOR_PROCESS_NAME};
print "$name begins\n";
print STDERR "$name complains\n";
note($name);
open my $fifo, '+<', "$T/$name.fifo" or die $!;
while (my $line = <$fifo>) { print $line }
CODE
	system('mkfifo', $pod->path("$_.fifo")) == 0 or die for qw(file console);
	return <<CONF;
[program:file]
command=$say
startsecs=0
stdout_logfile=%(here)s/file.log
stderr_logfile=%(here)s/file.err
[program:console]
command=$say
startsecs=0
redirect_stderr=true
[program:none]
command=sleep 1000
startsecs=0
stdout_logfile=NONE
stderr_logfile=NONE
CONF
});
my %fifo;
sub say_to { my ($name, $text) = @_; open $fifo{$name}, '+<', $pod->path("$name.fifo") or die if !$fifo{$name}; syswrite $fifo{$name}, $text; return }
$pod->wait_events(2);

subtest 'tail' => sub {
	ok wait_for { my ($c, $o) = $pod->ctl('tail', 'file'); "$c $o" eq "0 file begins\n" } 'of a file';
	my ($code, $out) = $pod->ctl('tail', '--stderr', 'file');
	is "$code $out", "0 file complains\n", 'stderr';
	ok wait_for { my ($c, $o) = $pod->ctl('tail', 'console'); "$c $o" eq "0 console begins\nconsole complains\n" } 'of what went to the console';
	($code, $out, my $err) = $pod->ctl('tail', 'none');
	is $code, 1, 'of what goes nowhere';
	like $err, qr{/dev/null}, 'is said';
	($code, $out) = $pod->ctl('tail', 'file', 'console');
	is $code, 0, 'of two';
	like $out, qr/^file\s+\| file begins\nconsole\s+\| console begins\nconsole\s+\| console complains\n$/, 'every line has its name';
};

subtest 'tail -f' => sub {
	for my $name (qw(file console)) {
		my ($pid, $r) = background($pod, 'tail', '-f', $name);
		like until_line($r, qr/begins/), qr/^$name begins$/, "$name: what there was";
		say_to($name, "news for $name\n");
		is until_line($r, qr/news/), "news for $name\n", 'and what comes';
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	my ($pid, $r) = background($pod, 'tail', '-f', 'file');
	until_line($r, qr/begins/);
	my ($code) = $pod->ctl('restart', 'file');
	ok until_line($r, qr/^file begins$/), 'over a restart of the program';
	close $r;
	say_to('file', "nobody reads\n") for 1 .. 3;
	ok wait_for { say_to('file', "x\n"); waitpid($pid, WNOHANG()) == $pid } 'podctl to end when its reader has';
};

subtest 'a follower that does not read makes nobody wait' => sub {
	my ($pid, $r) = background($pod, 'tail', '-f', 'file');
	until_line($r, qr/begins/);
	kill 'STOP', $pid;
	my $line = 'z' x 1000 . "\n";
	say_to('file', $line) for 1 .. 4000;
	say_to('file', "the end\n");
	ok wait_for { slurp($pod->path('file.log')) =~ /^the end$/m } 'the program to print it all';
	my ($code) = $pod->ctl('status', 'file');
	is $code, 0, 'the supervisor answers';
	kill 'CONT', $pid;
	say_to('file', "afterwards\n");
	like until_line($r, qr/lost/), qr/^\[\d+ bytes lost: read too slowly\]$/, 'and it is told what it missed';
	kill 'KILL', $pid;
	waitpid $pid, 0;
};

subtest 'logs' => sub {
	my ($code, $out) = $pod->ctl('logs', 'console');
	is $code, 0, 'exit code';
	like $out, qr/^console \| console begins$/m, 'prefixed';
	my ($pid, $r) = background($pod, 'logs', '-f', 'file', 'console');
	until_line($r, qr/^console \| /);
	say_to('file', "one ");
	say_to('console', "other\n");
	is until_line($r, qr/other/), "console | other\n", 'lines';
	say_to('file', "line\n");
	is until_line($r, qr/one/), "file    | one line\n", 'are not mixed';
	kill 'KILL', $pid;
	waitpid $pid, 0;
	# A program that is taken out of the configuration ends what follows it.
	($pid, $r) = background($pod, 'tail', '-f', 'console');
	until_line($r, qr/begins/);
	my $conf = slurp($pod->path('pod.conf'));
	spew($pod->path('pod.conf'), $conf =~ s/\[program:console\].*?(?=\[program:none)//sr);
	($code) = $pod->ctl('reload');
	is $code, 0, 'a program goes';
	waitpid $pid, 0;
	is $?, 0, 'and its follower';
};

subtest 'top' => sub {
	my ($code, $out) = $pod->ctl('top');
	is $code, 0, 'exit code';
	like $out, qr/^NAME\s+STATE\s+PID\s+CPU\s+PSS\s+UPTIME\s+RESTARTS$/m, 'head';
	like $out, qr/^file\s+RUNNING\s+\d+\s+\d+\.\d%\s+\d+\.\d MB\s+\S.*\d$/m, 'line';
	like $out, qr/^all\s/m, 'sum';
	unlike $out, qr/\033/, 'no escape sequences in a pipe';
	($code, $out) = $pod->ctl('--json', 'top');
	my ($file) = grep { $_->{name} eq 'file' } @{ json_decode($out)->{programs} };
	cmp_ok $file->{resident_bytes}, '>', 1e6, 'JSON: memory';
	cmp_ok $file->{cpu_share}, '>=', 0, 'JSON: processor';
};

subtest 'top on a terminal repeats' => sub {
	plan skip_all => 'script(1) is missing' if !grep { -x "$_/script" } split /:/, $ENV{PATH};
	my $command = eg_bin('podctl') . ' --socket ' . $pod->path('supervisor.sock') . ' top --interval=20ms';
	local $ENV{TERM} = 'xterm';
	my $pid = open my $r, '-|', 'script', '-qec', $command, '/dev/null' or die;
	my $heads = 0;
	local $SIG{ALRM} = sub { die 'no third table' };
	alarm 30;
	while (my $line = <$r>) { $heads++ if $line =~ /NAME.*CPU/; last if $heads == 3 }
	alarm 0;
	is $heads, 3, 'three times';
	kill 'KILL', $pid;
	close $r;
};

subtest 'completion' => sub {
	my ($code, $script) = $pod->ctl('completion', 'bash');
	is $code, 0, 'needs no supervisor';
	my $complete = sub {
		my (@words) = @_;
		my $words = join ' ', map { "'$_'" } @words;
		local $ENV{RUN_DIR} = $pod->dir;
		spew(test_path('complete'), "$script\nCOMP_WORDS=($words)\nCOMP_CWORD=$#words\n_podctl\nprintf '%s\\n' \"\${COMPREPLY[@]}\"\n");
		return join ' ', sort split /\n/, `bash @{[ test_path('complete') ]}`;
	};
	my $podctl = eg_bin('podctl');
	is $complete->($podctl, 're'), 'reload restart', 'commands';
	is $complete->($podctl, 'stop', 'fi'), 'file', 'names of programs';
	is $complete->($podctl, 'signal', 'H'), 'HUP', 'signals';
	is $complete->($podctl, 'signal', 'HUP', 'no'), 'none', 'and names behind them';
	is $complete->($podctl, 'log-level', 'd'), 'debug', 'levels';
	is $complete->($podctl, 'tail', '--fol'), '--follow', 'options';
	is $complete->($podctl, '--timeout', '3', 'rel'), 'reload', 'behind an option with a value';
	is $complete->($podctl, '--timeout', ''), '', 'nothing for a value';
	is $complete->($podctl, '--timeout', '=', '3', 'rel'), 'reload', 'also with =';
	($code) = $pod->ctl('completion', 'fish');
	is $code, 64, 'another shell';
};

subtest 'purge' => sub {
	my ($code, $out, $err) = $pod->ctl('purge', '--all');
	is $code, 69, 'exit code';
	like $err, qr/no broadcasterd is running/, 'is said';
	($code) = $pod->ctl('purge');
	is $code, 64, 'of what?';
	($code) = $pod->ctl('status', '--all');
	is $code, 64, 'its options are no others\'';
};

subtest 'a name that means nothing' => sub {
	for ([ 'tail', 'nobody' ], [ 'tail', '-f', 'nobody' ], [ 'logs', 'file', 'nobody' ], [ 'logs', '-f', 'nobody', 'file' ]) {
		my ($code, $out, $err) = $pod->ctl(@$_);
		is $code, 4, "podctl @$_";
		is $out, '', 'nothing is shown';
		like $err, qr/^podctl: no such program: nobody$/m, 'it is named';
	}
};

is $pod->stop, 0;
done_testing;

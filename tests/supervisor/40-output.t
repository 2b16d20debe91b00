#!/usr/bin/env perl

# What programs print: prefixed lines, files, rotation, floods.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

subtest 'lines on the supervisor\'s stderr' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => <<'CODE');
print STDOUT "one line\n";
print STDERR "an error\n";
syswrite STDOUT, 'cut '; select undef, undef, undef, 0.02; syswrite STDOUT, "in two\n";
print STDOUT qq({"a":1}\n);
print STDOUT 'x' x 20000, "\n";
print STDOUT 'no newline';
CODE
		return "[program:p]\ncommand=$command\nstartsecs=0\nautorestart=false\n";
	});
	$pod->wait_state(p => 'EXITED');
	is $pod->stop, 0;
	my $log = $pod->log;
	like $log, qr/^p +\| one line$/m, 'stdout';
	like $log, qr/^p +\| an error$/m, 'stderr';
	like $log, qr/^p +\| cut in two$/m, 'written in two pieces';
	like $log, qr/^\{"a":1\}$/m, 'JSON as it is';
	like $log, qr/^p +\| no newline$/m, 'the last words';
	my @x = $log =~ /^p +\| (x+)$/mg;
	is length(join '', @x), 20000, 'a long line, in pieces';
};

subtest 'files' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => 'print STDOUT "out\n"; print STDERR "err\n"; sleep 1000;');
		return <<CONF;
[supervisord]
childlogdir=%(here)s
[program:both]
command=$command
startsecs=0
stdout_logfile=%(here)s/%(program_name)s.out
stderr_logfile=%(here)s/%(program_name)s.err
[program:one]
command=$command
startsecs=0
stdout_logfile=%(here)s/one.log
redirect_stderr=true
[program:auto]
command=$command
startsecs=0
stdout_logfile=AUTO
stderr_logfile=NONE
[program:nowhere]
command=$command
startsecs=0
stdout_logfile=/usr
startretries=0
CONF
	});
	my ($bad) = $pod->wait_state(nowhere => 'FATAL');
	like $bad->{description}, qr{cannot open the log /usr: Is a directory}, 'a file that cannot be';
	my $wait = sub { my ($name, $re) = @_; return wait_for { -e $pod->path($name) && slurp($pod->path($name)) =~ $re } $name };
	ok $wait->('both.out', qr/^out\n\z/), 'stdout_logfile';
	ok $wait->('both.err', qr/^err\n\z/), 'stderr_logfile';
	ok $wait->('one.log', qr/^(?:out\nerr|err\nout)\n\z/), 'redirect_stderr';
	ok $wait->('auto-stdout.log', qr/^out\n\z/), 'AUTO';
	unlike $pod->log, qr/\berr$/m, 'NONE';
	my ($code, $out) = $pod->ctl('tail', 'both');
	is "$code $out", "0 out\n", 'podctl tail';
	($code, $out) = $pod->ctl('tail', '--stderr', '--bytes=2', 'both');
	is "$code $out", "0 r\n", 'podctl tail --stderr --bytes';
	($code, $out, my $err) = $pod->ctl('tail', 'nobody');
	is $code, 4, 'podctl tail of nobody';
	rename $pod->path('both.out'), $pod->path('both.old') or die;
	$pod->process->signal('USR2');
	ok wait_for { -e $pod->path('both.out') } 'a new file after SIGUSR2';
	is $pod->stop, 0;
};

subtest 'rotation' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => 'for my $i (1 .. 4000) { printf "%09d\n", $i } note("done"); sleep 1000;');
		return "[program:p]\ncommand=$command\nstartsecs=0\nstdout_logfile=%(here)s/p.log\nstdout_logfile_maxbytes=10KB\n"
			. "stdout_logfile_backups=2\n";
	});
	$pod->wait_events(1);
	is $pod->stop, 0;
	ok -e $pod->path($_), $_ for qw(p.log p.log.1 p.log.2);
	ok !-e $pod->path('p.log.3'), 'no more than two backups';
	my $text = join '', map { slurp($pod->path($_)) } qw(p.log.2 p.log.1 p.log);
	my @lines = split /\n/, $text;
	is $lines[-1], '000004000', 'the newest is there';
	my $gaps = grep { $lines[$_] ne sprintf '%09d', $lines[ $_ - 1 ] + 1 } 2 .. $#lines;
	is $gaps, 0, 'and no line between is missing';
};

subtest 'a flood harms nobody' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $flood = $pod->script(flood => 'my $x = ("y" x 99) . "\n"; note("flood"); print $x while 1;');
		return "[program:flood]\ncommand=$flood\nstartsecs=0\nstdout_logfile=%(here)s/flood.log\nstdout_logfile_maxbytes=100KB\n"
			. "stdout_logfile_backups=1\n[program:quiet]\ncommand=sleep 1000\nstartsecs=0\n";
	});
	$pod->wait_events(1);
	wait_for { -e $pod->path('flood.log.1') } 'a rotation';
	my ($quiet) = $pod->wait_state(quiet => 'RUNNING');
	kill 'KILL', $quiet->{pid};
	wait_for { my %n = $pod->status; $n{quiet}{restarts} == 1 && $n{quiet}{state} eq 'RUNNING' } 'a restart under the flood';
	pass 'the sibling is restarted meanwhile';
	cmp_ok rss_kb($pod->process->pid), '<', instrumented() ? 200000 : 8000, 'memory stays small';
	my ($code) = $pod->ctl('stop', 'flood');
	is $code, 0, 'and it can be stopped';
	is $pod->stop, 0;
};

subtest 'a console that nobody reads stops its writers, not the supervisor' => sub {
	my $dir = test_path('stuck');
	mkdir $dir or die;
	spew("$dir/pod.conf", "[program:flood]\ncommand=yes\nstartsecs=0\n[program:quiet]\ncommand=sleep 1000\nstartsecs=0\n");
	pipe my $r, my $w or die;
	my $pid = fork // die;
	if (!$pid) {
		open STDERR, '>&', $w or die;
		close $_ for $r, $w;
		$ENV{RUN_DIR} = $dir;
		exec eg_bin('supervisor'), "--config=$dir/pod.conf" or die;
	}
	close $w;
	my $status = sub {
		my $programs = eval { EG::RPC->new("$dir/supervisor.sock")->call('status', [ [] ])->[0] } or return;
		return map { ($_->[0] => $_) } @$programs;
	};
	my %now;
	wait_for { %now = $status->(); ($now{quiet}[1] // '') eq 'RUNNING' } 'quiet to run';
	kill 'KILL', $now{quiet}[3];
	wait_for { %now = $status->(); $now{quiet}[5] == 1 } 'its restart';
	pass 'restarts go on';
	kill 'TERM', $pid;
	# It ends although its stderr is stuck (it waits a second for a reader).
	waitpid $pid, 0;
	is $?, 0, 'and it ends';
	close $r;
};

subtest 'what a full disk does not take is told and counted' => sub {
	plan skip_all => 'there is no /dev/full' if !-c '/dev/full';
	my $pod = Pod->new("[program:p]\ncommand=sh -c 'while echo 123456789; do sleep 0.01; done'\nstartsecs=0\nstdout_logfile=/dev/full\n");
	my $lost = sub {
		my ($family) = grep { $_->[0] eq 'supervisor_program_output_lost_bytes_total' } @{ EG::RPC->new($pod->path('supervisor.sock'))->call('metrics')->[0] };
		return $family->[5][0][1];
	};
	ok wait_for { $lost->() >= 20 } 'the metric to count';
	is $lost->() % 10, 0, 'in bytes';
	my @told = grep { /cannot write .*full/ } split /\n/, $pod->log;
	is scalar @told, 1, 'said once';
	like $told[0], qr{/dev/full: No space left on device}, 'where and why';
	my $before = $lost->();
	is +($pod->ctl('restart', 'p'))[0], 0, 'restarted';
	cmp_ok $lost->(), '>=', $before, 'the counter does not go back';
	is $pod->stop, 0;
};

done_testing;

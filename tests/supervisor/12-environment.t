#!/usr/bin/env perl

# What a process is started with: environment, files, secrets, limits, user, umask, directory.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my $pod = Pod->new(sub {
	my ($pod) = @_;
	my $show = $pod->script(show => <<'CODE');
my $n = $ENV{SUPERVISOR_PROCESS_NAME};
note("$n:$_=" . ($ENV{$_} // '-')) for qw(A B C D E TOKEN SUPERVISOR_GROUP_NAME);
open my $l, '<', '/proc/self/limits' or die;
/^Max (open files|core file size)\s+(\S+)\s+(\S+)/ and note("$n:$1=$2 $3") while <$l>;
note("$n:umask=" . sprintf '%03o', umask);
note("$n:end");
sleep 1000;
CODE
	spew($pod->path('one.env'), "# comment\n\nB=one\nexport C='one two'\nD=\"one\"\nE = one\r\n");
	spew($pod->path('two.env'), "D=two\nA=two\n");
	spew($pod->path('token'), "s3cret-value\n");
	return <<CONF;
[supervisord]
environment=B=shared,TOKEN=shared
[program:p]
command=$show
startsecs=0
startretries=0
environment=A="own"
environment_file=%(here)s/one.env, %(here)s/two.env
secrets=TOKEN=%(here)s/token
limits=nofile=100:200, core=0
umask=027
[program:bad_line]
command=$show
startretries=0
environment_file=%(here)s/bad.env
[program:no_file]
command=$show
startretries=0
secrets=TOKEN=%(here)s/absent
[program:nul]
command=$show
startretries=0
secrets=TOKEN=/proc/self/cmdline
[program:high]
command=$show
startretries=0
limits=nofile=1000000000
CONF
});

my ($p) = $pod->wait_state(p => 'RUNNING');
wait_for { grep { $_ eq 'p:end' } $pod->events } 'the program to say what it has';
my %has = map { /^p:(.*?)=(.*)/ ? ($1 => $2) : () } $pod->events;
is_deeply \%has, {
	A => 'own', B => 'one', C => 'one two', D => 'two', E => 'one', TOKEN => 's3cret-value', SUPERVISOR_GROUP_NAME => 'p',
	'open files' => '100 200', 'core file size' => '0 0', umask => '027',
}, 'environment= before secrets= before the last file before the first before the shared ones; limits; umask';

my @bad = $pod->wait_state(map { ($_ => 'FATAL') } qw(bad_line no_file nul high));
like $bad[0]{description}, qr/cannot read .*bad\.env: No such file/, 'an environment file that is not there';
like $bad[1]{description}, qr/cannot read .*absent: No such file/, 'a secret that is not there';
like $bad[2]{description}, qr/has a NUL byte/, 'a secret with a NUL';
like $bad[3]{description}, qr/cannot set its limits/, 'a limit above the hard one';

spew($pod->path('bad.env'), "FINE=1\nthis is no assignment\n");
$pod->ctl('start', 'bad_line');
($bad[0]) = $pod->wait_state(bad_line => 'FATAL');
like $bad[0]{description}, qr/bad\.env:2: expected NAME=value/, 'file and line of a mistake in it';

spew($pod->path('token'), "rotated\n");
my ($code) = $pod->ctl('restart', 'p');
is $code, 0, 'a restart';
wait_for { (grep { $_ eq 'p:end' } $pod->events) == 2 } 'the program again';
is((grep { $_ eq 'p:TOKEN=rotated' } $pod->events), 1, 'reads the secret anew');
my ($c, $out) = $pod->ctl('--json', 'status');
unlike $out . $pod->log, qr/s3cret|rotated/, 'and nobody shows it';
is $pod->stop, 0;

subtest '%(here)s is the directory of the file that it stands in' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		mkdir $pod->path('inc') or die;
		my $print = $pod->script(print => 'note(@ARGV); sleep 1000;');
		spew($pod->path('inc/more.conf'), "[program:included]\ncommand=$print included %(here)s\nstartsecs=0\n");
		return "[include]\nfiles=inc/*.conf\n[program:main]\ncommand=$print main %(here)s\nstartsecs=0\n";
	});
	$pod->wait_events(2);
	my $dir = $pod->dir;
	is_deeply [ sort $pod->events ], [ "included $dir/inc", "main $dir" ], 'as in supervisord';
	is $pod->stop, 0;
};

done_testing;
